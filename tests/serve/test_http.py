"""The HTTP interface, who may use it, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

import cv2
import numpy as np

from tests.rtsp_server import wait_until
from tests.serve.conftest import SQUARE_POINT, Serve, Server

TOKEN = "0123456789abcdef0123"


def test_an_object_by_http(serve: Serve) -> None:
    with serve() as server:
        assert server.call("POST", "/api/prompt", {"points": [SQUARE_POINT], "name": "square"}) == (200, {"object": 1})
        status, frame = server.call("GET", "/api/frame")
        (found,) = frame["objects"]
        assert (status, frame["size"], found["name"], found["state"]) == (200, [80, 60], "square", "seen")
        assert found["mask"]["size"] == [60, 80] and re.fullmatch("#[0-9a-f]{6}", found["color"])
        picture = cv2.imdecode(np.frombuffer(server.call("GET", "/api/frame.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == (60, 80, 3)
        assert server.call("PATCH", "/api/objects/1", {"name": "mug"}) == (200, {})
        assert server.call("POST", "/api/pause") == (200, {})
        paused = server.call("GET", "/api/frame")[1]
        assert paused["paused"] and paused["objects"][0]["name"] == "mug"
        assert server.call("POST", "/api/step") == (200, {})
        wait_until(lambda: server.call("GET", "/api/frame")[1]["frame"] > paused["frame"])
        assert server.call("POST", "/api/resume") == (200, {})
        assert server.call("DELETE", "/api/objects/1") == (200, {})
        assert server.call("GET", "/api/frame")[1]["objects"] == []
        assert server.call("DELETE", "/api/objects") == (200, {})


def test_status_health_and_metrics(serve: Serve) -> None:
    with serve() as server:
        status = server.call("GET", "/api/status")[1]
        assert (status["model"], status["backend"], status["is_live"]) == ("sam2/micro", "fake", False)
        assert server.call("GET", "/healthz") == (200, {"ok": True, "fault": ""})
        assert b"\nsam2edge_serve_objects 0\n" in server.call("GET", "/metrics")[1]
        paths = server.call("GET", "/openapi.json")[1]["paths"]
        assert {"/api/prompt", "/api/objects/{object_id}", "/api/recording", "/healthz"} <= set(paths)
        assert all(method.get("description") for path in paths.values() for method in path.values())
        server.service.session.alive_at -= 1000
        server.service.session.stop()
        status, answer = server.call("GET", "/healthz")
        assert status == 503 and "stopped" in answer["fault"]


def test_bodies_that_cannot_be_used(serve: Serve) -> None:
    with serve() as server:
        for body, status, words in (
            (b"{", 422, "JSON"),
            ([], 422, "dict"),
            ({}, 400, "marks nothing"),
            ({"points": [[1, 2]], "labels": [1, 0]}, 400, "labels do not match"),
            ({"points": [[1, 2]], "labels": [2]}, 422, "labels"),
            ({"points": [[1]]}, 422, "points"),
            ({"points": [[1, "x"]]}, 422, "points"),
            (b'{"points": [[1, NaN]]}', 422, ""),
            ({"points": [[1e30, 1]]}, 422, "points"),
            ({"points": [[1, 2]] * 65}, 422, "points"),
            ({"points": [[1, 2]], "frame": -1}, 422, "frame"),
            ({"points": [[1, 2]], "object": 0}, 422, "object"),
            ({"points": [[1, 2]], "object": 9}, 400, "no such object"),
            ({"points": [[1, 2]], "frame": 10**9}, 400, "not kept"),
            ({"box": [1, 2, 3]}, 422, "box"),
            ({"points": [[1, 2]], "file": "/etc/passwd"}, 422, "file"),
            ({"points": [[1, 2]], "name": "x" * 41}, 422, "name"),
        ):
            found, answer = server.call("POST", "/api/prompt", body)
            assert found == status and words in answer["error"], (body, found, answer)
        assert server.call("POST", "/api/prompt", {"points": [SQUARE_POINT]})[0] == 200


def test_oversized_bodies(serve: Serve) -> None:
    with serve() as server:
        assert server.call("POST", "/api/prompt", b" " * 70_000)[0] == 413
        host, _, port = server.address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:  # of a length that is not said
            head = f"POST /api/prompt HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode())
            chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
            try:
                for _ in range(64):
                    connection.sendall(chunk)
                answer = connection.recv(1000)
            except OSError:
                answer = b""
            assert b" 200 " not in answer.partition(b"\r\n")[0]
        assert server.call("GET", "/healthz")[0] == 200


def test_the_token(serve: Serve) -> None:
    with serve(token=TOKEN) as server:
        for header in ("Bearer wrong", f"Basic {TOKEN}", "", f"Bearer {TOKEN}x", "Bearer \xff"):
            for method, path in (("GET", "/api/status"), ("POST", "/api/pause"), ("GET", "/metrics")):
                status, answer = server.call(method, path, Authorization=header)
                assert status == 401 and "token" in answer["error"]
        assert server.call("GET", "/api/status")[0] == 200
        anonymous = Server(server.address, server.service, None)
        assert anonymous.call("GET", f"/api/frame.jpg?token={TOKEN}")[0] == 200  # of a player, which sends no header
        assert anonymous.call("POST", f"/api/pause?token={TOKEN}")[0] == 401
        assert anonymous.call("GET", "/")[0] == 200 and anonymous.call("GET", "/healthz")[0] == 200


def test_pages_of_other_sites(serve: Serve) -> None:
    with serve() as server:
        for headers, expected in (
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({"Host": "evil.example"}, 421),  # its name resolves to this machine
            ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
            ({"Origin": server.address}, 200),
            ({"Host": "localhost:8000"}, 200),
        ):
            assert server.call("POST", "/api/pause", **headers)[0] == expected, headers
            assert server.call("GET", "/api/status", **headers)[0] == expected, headers
        with urllib.request.urlopen(server.address) as answer:
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers


def test_the_page_needs_nothing_from_elsewhere(serve: Serve) -> None:
    with serve() as server:
        for path in ("/", "/page.js", "/page.css", "/icon.svg"):
            status, content = server.call("GET", path)
            addresses = re.findall(rb"(?:https?:)?//[a-z][^\s\"')]+", content)
            assert status == 200 and {a for a in addresses if b"www.w3.org/2000/svg" not in a} == set()


def test_mjpeg(serve: Serve) -> None:
    with serve(max_clients=1) as server:
        with urllib.request.urlopen(server.address + "/api/stream.mjpg", timeout=10) as stream:
            assert stream.headers["content-type"].startswith("multipart/x-mixed-replace")
            for _ in range(3):
                assert stream.readline() == b"--frame\r\n"
                stream.readline()
                length = int(stream.readline().split()[1])
                stream.readline()
                picture = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
                assert picture is not None and picture.shape == (60, 80, 3)
                stream.readline()
            assert server.call("GET", "/api/stream.mjpg")[0] == 503
        wait_until(lambda: server.service.clients == 0)


def test_recording(serve: Serve) -> None:
    with serve() as server:
        server.call("POST", "/api/prompt", {"points": [SQUARE_POINT]})
        state = server.call("POST", "/api/recording", {"on": True})[1]
        assert state["recording"] and re.fullmatch(r"\d{8}T\d{6}Z\.mp4", state["file"])
        assert server.call("POST", "/api/recording", {"on": True})[1]["file"] == state["file"]
        wait_until(lambda: server.service.recorder.state["frames"] >= 5)
        state = server.call("POST", "/api/recording", {"on": False})[1]
        assert not state["recording"] and state["problem"] == ""
        (entry,) = server.call("GET", "/api/recordings")[1]
        status, video = server.call("GET", f"/api/recordings/{entry['file']}")
        assert status == 200 and len(video) == entry["bytes"]
        path = server.service.recorder.folder / entry["file"]
        capture = cv2.VideoCapture(str(path))
        count = 0
        while capture.read()[0]:
            count += 1
        assert count == state["frames"] >= 5
        for name in ("..%2f..%2fetc%2fpasswd", "..", "%00", ".hidden.mp4", "%2e%2e%2f" + entry["file"], "x" * 3000):
            status, answer = server.call("GET", f"/api/recordings/{name}")
            assert status in (400, 404), (name, status, answer)


def test_a_recording_goes_on_to_the_end_of_the_server(serve: Serve) -> None:
    with serve() as server:
        server.call("POST", "/api/recording", {"on": True})
        wait_until(lambda: server.service.recorder.state["frames"] >= 3)
    (path,) = server.service.recorder.folder.glob("*.mp4")
    assert cv2.VideoCapture(str(path)).read()[0]


def test_a_folder_that_takes_no_recording(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with serve(recordings=str(tmp_path / "file" / "x")) as server:
        status, answer = server.call("POST", "/api/recording", {"on": True})
        assert status == 400 and "--recordings" in json.dumps(answer)
