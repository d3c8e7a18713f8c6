"""A consumer's side of hookturn, for Python 3.9 or later: no dependencies. docs/consumers.md has the contract."""

import hashlib
import hmac
import json
import logging
import urllib.request
from datetime import datetime, timezone

STATES = ("current", "pending", "previous")
HEADERS = ("x-nexa-signature", "x-dialnexa-signature")


class Verifier:
    def __init__(self, keystore):
        self.keystore = keystore
        self.last_good = []

    def signer(self, headers, raw):
        """The kid of the key that signed these bytes, or None: answer 401 then, and say no more.

        `headers` is anything with a case-insensitive `get`, `raw` the body as it came.
        """
        given = [headers.get(name) or "" for name in HEADERS]
        macs = [(v[7:] if v[:7].lower() == "sha256=" else v).lower().encode() for v in given if v]
        found = None
        for key in self.keys():
            mac = hmac.new(key["secret"].encode(), raw, hashlib.sha256).hexdigest().encode()
            if any([hmac.compare_digest(mac, other) for other in macs]):
                found = key["kid"]
        return found

    def keys(self):
        """Read for every delivery: it is small, and so a new key counts from its first instant."""
        try:
            with open(self.keystore, encoding="utf-8") as file:
                content = json.load(file)
            keys = content["keys"]
            if content["version"] != 1 or len({key["kid"] for key in keys}) != len(keys):
                raise ValueError("not a keystore that this code knows")
            self.last_good = keys
        except (OSError, ValueError, KeyError, TypeError) as error:
            logging.error("%s: %s; the last good keys stay", self.keystore, type(error).__name__)
        return [key for key in self.last_good if key.get("state") in STATES and not expired(key.get("accept_until"))]


def expired(until):
    return bool(until) and datetime.fromisoformat(until.replace("Z", "+00:00")) <= datetime.now(timezone.utc)


def report(url, token, kid, raw, status, replica, **about):
    """Tells hookturn what this replica verified and answered. After the answer; a report that is lost is no harm.

    `about`: what a person may want to know of the delivery: event, user_agent, address."""
    said = {"kid": kid, "body_sha256": hashlib.sha256(raw).hexdigest(), "status": status, "replica": replica, **about}
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    try:
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(said).encode(), headers), timeout=2).close()
    except OSError:
        pass
