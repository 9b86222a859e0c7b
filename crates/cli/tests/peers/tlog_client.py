#!/usr/bin/env python3
"""Reads and verifies a log that is served as c2sp.org/tlog-tiles says, with nothing of Portcullis.

Written from the specifications (tlog-tiles, tlog-checkpoint, signed-note, tlog-cosignature,
RFC 6962) with Python's standard library; signatures are checked by the `openssl` program.

usage: tlog_client.py PREFIX VERIFIER-KEY [WITNESS-KEY ...]

Prints one JSON object: size, root, the digest of every entry in order, who cosigned. Any departure
from the specifications ends it with a message and exit code 1.
"""

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

WIDTH = 256


def fail(why):
    print("not a log as specified: " + why, file=sys.stderr)
    sys.exit(1)


def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(hashes):
    """MTH of RFC 6962 section 2.1, over hashes of leaves or of complete subtrees of one size."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(tree_hash(hashes[:split]), tree_hash(hashes[split:]))


class Log:
    def __init__(self, prefix):
        self.prefix = prefix.rstrip("/")

    def get(self, path, compressed=False):
        asked = "gzip, identity" if compressed else "identity"
        request = urllib.request.Request(
            self.prefix + "/" + path, headers={"Accept-Encoding": asked}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
            if answer.headers.get("Content-Encoding") == "gzip":
                if not compressed:
                    fail(path + " is compressed though nobody asked for it")
                body = gzip.decompress(body)
            return answer.headers, body

    def resource(self, path, width, compressed=False):
        partial = "" if width == WIDTH else ".p/%d" % width
        headers, body = self.get(path + partial, compressed)
        if headers.get("Content-Type") != "application/octet-stream":
            fail(path + " has the content type %s" % headers.get("Content-Type"))
        if "immutable" not in headers.get("Cache-Control", ""):
            fail(path + " may not be kept by caches")
        return body


def index_path(index):
    text = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        text = "x%03d/%s" % (index % 1000, text)
    return text


def verified_by(key, message, signature):
    der = bytes.fromhex("302a300506032b6570032100") + key
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for name, content in (("key", der), ("message", message), ("signature", signature)):
            names[name] = folder + "/" + name
            with open(names[name], "wb") as file:
                file.write(content)
        done = subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin"]
            + ["-inkey", names["key"], "-in", names["message"], "-sigfile", names["signature"]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    return done.returncode == 0


def parse_key(text, kind):
    name, key_id, encoded = text.split("+", 2)
    typed = base64.b64decode(encoded, validate=True)
    if len(typed) != 33 or typed[0] != kind:
        fail("the verifier key %s is of another type" % text)
    made = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4]
    if made.hex() != key_id:
        fail("the verifier key %s has another id" % text)
    return name, made, typed[1:]


def read_checkpoint(note, log_key, witness_keys):
    text, found, lines = note.decode("utf-8").rpartition("\n\n")
    if not found or not lines.endswith("\n"):
        fail("the checkpoint is not a signed note")
    body = text + "\n"
    origin, size, root = body.split("\n")[:3]
    name, key_id, key = log_key
    if origin != name:
        fail("the checkpoint is of %s" % origin)
    signed, cosigners = False, []
    for line in lines.splitlines():
        dash, signer, encoded = line.split(" ")
        raw = base64.b64decode(encoded, validate=True)
        if dash != "\u2014" or len(raw) < 5:
            fail("a signature line is malformed")
        if (signer, raw[:4]) == (name, key_id):
            if not verified_by(key, body.encode(), raw[4:]):
                fail("the log's signature does not verify")
            signed = True
        for witness, witness_id, witness_key in witness_keys:
            if (signer, raw[:4]) != (witness, witness_id):
                continue
            time = int.from_bytes(raw[4:12], "big")
            message = "cosignature/v1\ntime %d\n%s" % (time, body)
            if not verified_by(witness_key, message.encode(), raw[12:]):
                fail("the cosignature of %s does not verify" % witness)
            cosigners.append(witness)
    if not signed:
        fail("the log did not sign its checkpoint")
    if str(int(size)) != size:
        fail("the size has another spelling")
    return int(size), base64.b64decode(root, validate=True), cosigners


def read_log(log, size, root):
    """Every tile of every level, and every entry, of the tree of that size."""
    digests, level, hashes = [], 0, None
    while True:
        count = size // WIDTH**level
        if count == 0:
            break
        tiles = []
        for index in range(-(-count // WIDTH)):
            width = min(WIDTH, count - index * WIDTH)
            tile = log.resource("tile/%d/%s" % (level, index_path(index)), width)
            if len(tile) != width * 32:
                fail("tile %d/%d has %d bytes" % (level, index, len(tile)))
            tiles += [tile[at : at + 32] for at in range(0, len(tile), 32)]
            if level == 0:
                digests += read_bundle(log, index, width, tiles[-width:])
        if hashes is not None:
            made = [tree_hash(hashes[at : at + WIDTH]) for at in range(0, len(hashes), WIDTH)]
            full = len(hashes) // WIDTH
            if made[:full] != tiles:
                fail("the tiles of level %d are not those over the level below" % level)
        else:
            if tree_hash(tiles) != root:
                fail("the leaf hashes do not lead to the signed root")
        hashes, level = tiles, level + 1
    return digests


def read_bundle(log, index, width, leaves):
    bundle = log.resource("tile/entries/" + index_path(index), width, compressed=True)
    digests, at = [], 0
    for leaf in leaves:
        length = int.from_bytes(bundle[at : at + 2], "big")
        entry = bundle[at + 2 : at + 2 + length]
        if len(entry) != length or leaf_hash(entry) != leaf:
            fail("entry %d is not the one in its tile" % (index * WIDTH + len(digests)))
        digests.append(hashlib.sha256(entry).hexdigest())
        at += 2 + length
    if at != len(bundle):
        fail("bundle %d has bytes behind its last entry" % index)
    return digests


def absent(log, path):
    """A resource beyond the checkpoint must not be there."""
    try:
        log.get(path)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            fail("%s is answered with %d" % (path, error.code))
        return
    fail(path + " is beyond the checkpoint and is served")


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    log = Log(sys.argv[1])
    headers, note = log.get("checkpoint")
    if headers.get("Content-Type") != "text/plain; charset=utf-8":
        fail("the checkpoint has the content type %s" % headers.get("Content-Type"))
    if headers.get("Cache-Control") not in ("no-cache", "no-store"):
        fail("the checkpoint may be kept by caches")
    log_key = parse_key(sys.argv[2], 1)
    witnesses = [parse_key(text, 4) for text in sys.argv[3:]]
    size, root, cosigners = read_checkpoint(note, log_key, witnesses)
    digests = read_log(log, size, root)
    for path in ("tile/0/x999/x999/000", "tile/entries/x999/000", "tile/7/000.p/1"):
        absent(log, path)
    print(
        json.dumps(
            {"size": size, "root": root.hex(), "entries": digests, "cosigners": cosigners}
        )
    )


if __name__ == "__main__":
    main()
