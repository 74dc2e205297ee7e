#!/bin/sh
# Is the token on stdin good? Prints the verdict and exits with 0 where it is admitted, 1 where it is refused, and 2 where
# Auth gave no verdict: that admits nobody either. Needs SERVICE_KEY.
auth=${AUTH_INTERNAL_URL:-http://127.0.0.1:3101}
IFS= read -r token

# No token has other characters, and none of these needs escaping below.
case $token in '' | *[!A-Za-z0-9._~+/=-]*) exit 1 ;; esac

# Settings on stdin: an argument can be read by everybody, in ps. Straight to Auth, whatever .curlrc or http_proxy say.
answer=$(
  curl --disable --noproxy '*' --globoff --silent --show-error --max-time 1 --config - <<END
url = "$auth/validateToken"
header = "Authorization: Bearer $SERVICE_KEY"
header = "Content-Type: application/json"
data = "{\"token\":\"$token\"}"
write-out = "\n%{http_code}"
END
) || exit 2

printf %s "${answer%???}"
# Only 200 with "authenticated": true admits.
case $answer in
'{"authenticated":true,'*'
200') exit 0 ;;
'{"authenticated":false}
200') exit 1 ;;
esac
exit 2
