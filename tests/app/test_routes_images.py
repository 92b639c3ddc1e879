"""``/v1/images``, ``/v1/collections`` and ``/v1/verify`` over a real store."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from chashka.images import read_metadata
from served import Served, png, serving


def drawn(served: Served, **said: object) -> str:
    """The id of one drawn picture."""
    id: str = served.drawn(**said)["pictures"][0]["id"]
    return id


def test_an_upload_is_kept_as_it_came(served: Served) -> None:
    data = png()
    picture = served.upload(data)
    assert (picture["width"], picture["height"], picture["source"]) == (30, 20, "uploaded")
    assert picture["media_type"] == "image/png" and picture["bytes"] == len(data)
    assert served.client.get(picture["url"]).content == data
    small = served.client.get(picture["thumbnail"])
    assert Image.open(io.BytesIO(small.content)).format == "WEBP"
    assert served.client.get("/v1/images").json()["data"][0]["id"] == picture["id"]


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_formats_are_known_by_what_they_are(shared: Served, format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(out, format)
    assert shared.upload(out.getvalue())["media_type"] == f"image/{format.lower()}"  # whatever its name says


def test_other_programs_metadata_are_read(shared: Served) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(
        "parameters", "кошка\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 30x20"
    )
    picture = shared.upload(png(pnginfo=info))
    assert (picture["prompt"], picture["negative_prompt"], picture["seed"]) == ("кошка", "blur", 42)
    assert shared.client.get("/v1/images", params={"words": "кошк"}).json()["data"][0]["id"] == picture["id"]
    told = shared.client.get(f"/v1/images/{picture['id']}/metadata").json()
    assert told["metadata"]["steps"] == 20


def test_hostile_metadata_are_tamed(shared: Served) -> None:
    """What a file says of itself may be anything that JSON, or Python's reading of it, allows."""
    for text in (
        '{"request": {"prompt": "a\\u0000b\\ud800"}, "seed": 1e999}',
        '{"request": {"prompt": NaN}, "seed": 99999999999999999999999, "model": ["x"]}',
        '{"request": ' + '{"a":' * 200 + "1" + "}" * 200 + "}",
        '{"request": {"prompt": "' + "x" * 100_000 + '"}}',
        "[" * 5000,
    ):
        info = PngImagePlugin.PngInfo()
        info.add_text("chashka", text)
        picture = shared.upload(png(pnginfo=info))
        assert shared.client.get(f"/v1/images/{picture['id']}/metadata").status_code == 200
    assert shared.client.get("/v1/images").status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
        png()[:60],
        b"RIFF0000WAVE",
        b"PK\3\4",
    ],
)
def test_files_that_are_no_pictures(shared: Served, data: bytes) -> None:
    answer = shared.client.post("/v1/images", files={"file": ("a.png", data, "image/png")}, headers=shared.headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] in ("file", "input")


def test_pictures_of_too_many_pixels_are_not_decoded(shared: Served) -> None:
    header = png(np.zeros((1, 1, 3), np.uint8))
    for width, height in ((100_000, 100_000), (5001, 5000)):
        large = header[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + header[24:]
        answer = shared.upload(large, 422)
        assert answer["error"]["code"] == "file"


def test_only_a_form_with_one_file(shared: Served) -> None:
    assert shared.client.post("/v1/images", json={"file": "x"}).status_code == 422
    assert shared.client.post("/v1/images", files={"other": b"x"}, headers=shared.headers).status_code == 422
    assert shared.client.post("/v1/images", files={"file": b"x"}).status_code == 415  # as any site's form could


def test_a_picture_is_sent_with_as_much_as_it_may_say(shared: Served) -> None:
    made = shared.upload(png(pnginfo=_chunk('{"request": {"prompt": "тайна"}, "seed": 5, "family": "kandinsky"}')))
    full = shared.client.get(made["url"])
    assert read_metadata(full.content)["seed"] == 5  # type: ignore[index]
    for level in ("provenance", "none"):
        file = shared.client.get(made["url"], params={"privacy": level})
        assert "тайна".encode() not in file.content
        assert shared.service.store.pictures.sent(_sha256(file.content)) is not None
    jpeg = shared.client.get(made["url"], params={"format": "jpeg"})
    assert jpeg.headers["content-type"] == "image/jpeg" and jpeg.content[:3] == b"\xff\xd8\xff"
    assert shared.client.get(made["url"], params={"format": "bmp"}).status_code == 422
    assert shared.client.get(made["url"], params={"privacy": "some"}).status_code == 422


def test_the_servers_privacy_is_the_default(tmp_path: Path) -> None:
    with serving(tmp_path, privacy="none") as served:
        made = served.upload(png(pnginfo=_chunk('{"request": {"prompt": "тайна"}}')))
        assert "тайна".encode() not in served.client.get(made["url"]).content
        assert "тайна".encode() in served.client.get(made["url"], params={"privacy": "full"}).content


def test_what_was_sent_before_is_not_sent_again(shared: Served) -> None:
    url = f"/v1/images/{drawn(shared)}"
    first = shared.client.get(url)
    assert first.headers["etag"] and "private" in first.headers["cache-control"]
    again = shared.client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    other = shared.client.get(url, params={"format": "webp"}, headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200
    assert "sandbox" in first.headers["content-security-policy"]
    assert first.headers["content-disposition"].startswith("inline")


def test_search_pages_and_filters(served: Served) -> None:
    ids = [drawn(served, prompt=f"чайник {word}", seed=i) for i, word in enumerate(("синий", "красный", "зелёный"))]
    first = served.client.get("/v1/images", params={"words": "чайник", "limit": 2}).json()
    rest = served.client.get("/v1/images", params={"words": "чайник", "limit": 2, "before": first["next"]}).json()
    assert [one["id"] for one in first["data"] + rest["data"]] == ids[::-1]
    assert rest["next"] is None
    assert [one["id"] for one in served.client.get("/v1/images", params={"words": "зеленый"}).json()["data"]] == [
        ids[2]
    ]
    served.client.patch(f"/v1/images/{ids[0]}", json={"favourite": True})
    assert [one["id"] for one in served.client.get("/v1/images", params={"favourite": "true"}).json()["data"]] == [
        ids[0]
    ]
    for wrong in ({"limit": 0}, {"before": -1}, {"since": "nan"}, {"words": "a\0b"}, {"favourite": "maybe"}):
        assert served.client.get("/v1/images", params=wrong).status_code == 422, wrong


def test_delete_and_undo(served: Served) -> None:
    id = drawn(served)
    assert served.client.delete(f"/v1/images/{id}").json()["deleted"] is not None
    assert served.client.get(f"/v1/images/{id}").status_code == 404
    assert served.client.get("/v1/images").json()["data"] == []
    assert [one["id"] for one in served.client.get("/v1/images", params={"deleted": True}).json()["data"]] == [id]
    assert served.client.post(f"/v1/images/{id}/restore").json()["deleted"] is None
    assert served.client.get(f"/v1/images/{id}").status_code == 200


def test_collections(served: Served) -> None:
    id = drawn(served)
    made = served.client.post("/v1/collections", json={"name": "Чашки"})
    assert made.status_code == 201
    collection = made.json()["id"]
    assert served.client.post("/v1/collections", json={"name": "Чашки"}).status_code == 409
    served.client.patch(f"/v1/images/{id}", json={"collect": [collection]})
    assert served.client.get("/v1/collections").json()["data"][0]["pictures"] == 1
    found = served.client.get("/v1/images", params={"collection": collection}).json()["data"]
    assert [one["id"] for one in found] == [id]
    assert served.client.patch(f"/v1/collections/{collection}", json={"name": "Чайники"}).json()["name"] == "Чайники"
    served.client.patch(f"/v1/images/{id}", json={"uncollect": [collection]})
    assert served.client.get("/v1/images", params={"collection": collection}).json()["data"] == []
    assert served.client.patch(f"/v1/images/{id}", json={"collect": ["col_none"]}).status_code == 404
    assert served.client.delete(f"/v1/collections/{collection}").status_code == 204
    assert served.client.delete(f"/v1/collections/{collection}").status_code == 404
    for name in ("", " x", "a\nb", "x" * 201, "\ud800"):
        said = json.dumps({"name": name})  # half a surrogate pair is written as an escape
        answer = served.client.post("/v1/collections", content=said, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, name


def test_many_at_once(shared: Served) -> None:
    ids = [drawn(shared, prompt=f"чашка {i}", seed=i) for i in range(3)]
    answer = shared.client.post("/v1/images/download", json={"ids": [*ids, ids[0]], "format": "webp"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3 and archive.testzip() is None
        assert all(name.startswith("чашка-") and name.endswith(".webp") for name in archive.namelist())
    assert shared.client.post("/v1/images/download", json={"ids": [ids[0], "pic_none"]}).status_code == 404
    assert shared.client.post("/v1/images/download", json={"ids": []}).status_code == 422


def test_lineage_of_what_was_made_from_an_upload(shared: Served) -> None:
    start = shared.upload(png(np.full((256, 256, 3), 90, np.uint8)))
    child = shared.drawn(kind="edit", inputs={"init": start["id"]})["pictures"][0]["id"]
    told = shared.client.get(f"/v1/images/{child}/lineage").json()
    assert told["ancestors"] == [start["id"]] and told["links"][0]["use"] == "init"
    assert shared.client.get(f"/v1/images/{start['id']}/lineage").json()["descendants"] == [child]


def test_a_shared_server_keeps_the_tick(tmp_path: Path) -> None:
    with serving(tmp_path, policy="shared") as served:
        secret = served.service.store.keys.add("studio", ("generate", "read"))[1]
        served.client.always({"Authorization": f"Bearer {secret}"})
        data = png()
        refused = served.upload(data, expect=403)["error"]
        assert refused["code"] == "consent" and "consent=true" in refused["message"]
        assert served.client.get("/v1/images").json()["data"] == []
        kept = served.upload(data, consent="true", source="imported")
        assert kept["source"] == "imported"
        notes = [(note.what, note.about) for note in served.service.store.keys.notes()]
        assert notes[0] == ("consent", hashlib.sha256(data).hexdigest())


def test_verify(served: Served) -> None:
    mine = served.client.get(f"/v1/images/{drawn(served)}").content
    told = served.client.post("/v1/verify", files={"file": mine}, headers=served.headers).json()
    assert told["logged"] is True
    other = served.client.post("/v1/verify", files={"file": png()}, headers=served.headers).json()
    assert other["kind"] == "unknown" and other["logged"] is False
    assert served.client.post("/v1/verify", files={"file": b"no"}, headers=served.headers).status_code == 422
    assert len(served.client.get("/v1/images").json()["data"]) == 1


def _chunk(text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("chashka", text)
    return info


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
