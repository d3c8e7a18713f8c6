"""python3 server.py: KEYSTORE, REPORT_URL, REPORT_TOKEN, REPLICA and PORT say what differs from the values below."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hookturn_consumer import Verifier, report

VERIFIER = Verifier(os.environ.get("KEYSTORE", "/var/lib/hookturn-keys/billing/secrets.json"))
REPORT_URL = os.environ.get("REPORT_URL", "http://127.0.0.1:8780/report/billing")
REPLICA = os.environ.get("REPLICA", socket.gethostname())


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        kid = VERIFIER.signer(self.headers, raw)
        status = 401 if kid is None else handle(raw)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()
        self.wfile.flush()
        if kid is not None:
            report(REPORT_URL, os.environ.get("REPORT_TOKEN"), kid, raw, status, REPLICA)


def handle(raw):
    """Verified first, parsed second. DialNexa sends no delivery id: drop doubles by call id and event, work after the answer."""
    try:
        json.loads(raw)
        return 200
    except ValueError:
        return 400


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Hook).serve_forever()
