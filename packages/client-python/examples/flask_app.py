"""A Flask service behind Latchkey: every request needs a token that Auth admits at that moment.

Needs SERVICE_KEY, and AUTH_INTERNAL_URL unless Auth is at http://127.0.0.1:3101. Run it with: flask --app flask_app run
"""

from flask import Flask, Response, jsonify, request

from latchkey_client import RequireTokenWsgi

app = Flask(__name__)
app.wsgi_app = RequireTokenWsgi(app.wsgi_app)


@app.get("/data")
def data() -> Response:
    return jsonify(data=f"Hello, {request.environ['latchkey.auth'].username or 'guest'}!")
