"""A Starlette service behind Latchkey: every request needs a token that Auth admits at that moment.

Needs SERVICE_KEY, and AUTH_INTERNAL_URL unless Auth is at http://127.0.0.1:3101. Run it with: uvicorn starlette_app:app
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from latchkey_client import RequireToken


async def data(request: Request) -> JSONResponse:
    return JSONResponse({"data": f"Hello, {request.auth.username or 'guest'}!"})


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"Hello, {websocket.auth.username or 'guest'}!")
    await websocket.close()


app = RequireToken(Starlette(routes=[Route("/data", data), WebSocketRoute("/greet", greet)]))
