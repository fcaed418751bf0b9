"""Prints what is posted to it: the far side of `examples/webhook.py`.

python3 examples/print_posts.py [PORT]
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Printer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sys.stdout.write(body.decode(errors="replace") + "\n")
        sys.stdout.flush()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        """Nothing but the bodies is printed."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Printer)
    sys.stdout.write(f"Listening on http://127.0.0.1:{server.server_port}/\n")
    sys.stdout.flush()
    server.serve_forever()
