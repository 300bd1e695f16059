"""A small OpenID provider: discovery, an authorize page that agrees at once, signed id tokens, keys, and a way out."""

import base64
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlparse

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "ser-studio", "a-secret-between-the-two"


class Provider:
    """Signs in whomever `claims` describes. Use as a context."""

    def __init__(self) -> None:
        self.claims: dict[str, object] = {}
        self.nonces: dict[str, str] = {}  # code -> nonce
        self.key = RSAKey.generate_key(2048, {"kid": "1"})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Provider":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def secrets_toml(self) -> str:
        return f"""[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{secrets.token_hex(32)}"
client_id = "{CLIENT}"
client_secret = "{SECRET}"
server_metadata_url = "{self.url}/.well-known/openid-configuration"
"""

    def discovery(self) -> dict[str, object]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "end_session_endpoint": f"{self.url}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def agreed(self, asked: dict[str, str]) -> str:
        """Where the browser goes on to, with a code."""
        assert asked["client_id"] == CLIENT
        code = secrets.token_hex(8)
        self.nonces[code] = asked["nonce"]
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, asked: dict[str, str], authorization: str) -> dict[str, object]:
        """For a code, once, and for the one who knows the secret."""
        sent = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        assert sent == f"{CLIENT}:{SECRET}"
        claims = {"iss": self.url, "aud": CLIENT, "sub": "7", "iat": int(time.time()), "exp": int(time.time()) + 600}
        claims |= {"nonce": self.nonces.pop(asked["code"]), **self.claims}
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key)
        return {"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": signed}


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            asked = {key: values[0] for key, values in parse_qs(url.query).items()}
            if url.path == "/authorize":
                self._go(provider.agreed(asked))
            elif url.path == "/logout":
                self._go(asked["post_logout_redirect_uri"])
            elif url.path == "/jwks":
                self._say({"keys": [provider.key.as_dict(private=False)]})
            else:
                self._say(provider.discovery())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked = {key: values[0] for key, values in parse_qs(body).items()}
            self._say(provider.token(asked, self.headers["Authorization"]))

        def _go(self, where: str) -> None:
            self.send_response(302)
            self.send_header("Location", where)
            self.end_headers()

        def _say(self, what: dict[str, object]) -> None:
            body = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
