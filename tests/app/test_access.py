"""Keys, scopes, sessions, the server's own token, how often."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from chashka.app.guard.access import LOCAL, Access, Buckets, TooManyError, UnauthorizedError, Who, loopback
from chashka.app.settings import Settings
from chashka.errors import InputError
from served import Served, png, serving


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def added(served: Served, *scopes: str, name: str = "somebody") -> str:
    """The secret of a new key."""
    secret = served.service.store.keys.add(name, scopes)[1]
    served.service.access.changed()
    return secret


OWN = ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")
OTHERS = ("0.0.0.0", "::", "192.168.1.2", "cups.example", "localhost.example", "")


@pytest.mark.parametrize("host", [*OWN, *OTHERS])
def test_which_addresses_others_reach(host: str) -> None:
    assert loopback(host) is (host in OWN)


def test_without_keys_this_machine_may_everything(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert served.service.access.who(None) is LOCAL
        assert served.service.access.who("Bearer whatever") is LOCAL  # clients that must send one
        assert all(LOCAL.may(scope) for scope in ("generate", "read", "train", "admin"))
        assert served.client.get("/v1/limits").json()["key_needed"] is False


def test_who_asks_is_known_at_once_only_where_no_key_can_matter(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        access = served.service.access
        assert access.at_once(None, None) is None  # nobody looked yet
        assert access.who(None) is LOCAL
        assert access.at_once(None, None) is LOCAL
        assert access.at_once("Bearer chk_some", None) is None and access.at_once(None, "cookie") is None
        added(served, "read")
        assert access.at_once(None, None) is None
        with pytest.raises(UnauthorizedError):
            access.who(None)
        assert access.at_once(None, None) is None
    with serving(tmp_path / "exposed", host="0.0.0.0") as served:
        with pytest.raises(UnauthorizedError):
            served.service.access.who(None)
        assert served.service.access.at_once(None, None) is None


def test_the_first_key_closes_the_door(tmp_path: Path) -> None:
    with serving(tmp_path, token="t" * 43) as served:
        made = served.client.post("/v1/keys", json={"name": "tablet"}).json()
        assert made["secret"].startswith("chk_") and made["scopes"] == ["generate", "read"]
        for headers in ({}, bearer("chk_wrong"), {"Authorization": made["secret"]}, {"Authorization": "Bearer"}):
            answer = served.client.get("/v1/jobs", headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
        assert served.client.get(f"/v1/jobs?key={made['secret']}").status_code == 401
        assert served.client.get("/v1/jobs", headers=bearer(made["secret"])).status_code == 200
        assert served.client.get("/v1/keys", headers=bearer(made["secret"])).status_code == 403
        assert served.client.get("/healthz").status_code == 200
        assert served.client.get("/").status_code == 200  # the page, which asks for the key
        listed = served.client.get("/v1/keys", headers=bearer("t" * 43)).json()["data"]
        assert [key["name"] for key in listed] == ["tablet"] and "secret" not in listed[0]
        revoked = served.client.delete(f"/v1/keys/{made['id']}", headers=bearer("t" * 43))
        assert revoked.status_code == 200 and revoked.json()["revoked"]
        assert (
            served.client.delete(f"/v1/keys/{made['id']}").status_code == 404
        )  # no key is left: the door is open again
        assert served.client.get("/v1/jobs", headers=bearer(made["secret"])).status_code == 200


def test_an_exposed_server_always_needs_a_key(tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0") as served:
        assert served.client.get("/v1/jobs").status_code == 401
        with pytest.raises(InputError, match=r"0\.0\.0\.0.*chashka keys add"):
            served.service.access.refuse_open_door()
        added(served, "read")
        served.service.access.refuse_open_door()


def test_a_shared_server_needs_a_key_behind_a_proxy_too(tmp_path: Path) -> None:
    with serving(tmp_path, policy="shared") as served:
        assert served.client.get("/v1/jobs").status_code == 401
        with pytest.raises(InputError, match=r"policy: 'shared'.*chashka keys add"):
            served.service.access.refuse_open_door()
        key = added(served, "read")
        served.service.access.refuse_open_door()
        assert served.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
        served.service.store.keys.revoke(served.service.store.keys.list()[0].id)
        served.service.access.changed()
        assert served.client.get("/v1/jobs").status_code == 401  # the last one gone opens nothing


def test_scopes(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        reads, makes = bearer(added(served, "read")), bearer(added(served, "generate"))
        assert served.client.post("/v1/jobs", json={"prompt": "x"}, headers=reads).status_code == 403
        assert served.client.get("/v1/jobs", headers=makes).status_code == 403
        assert served.client.post("/v1/jobs", json={"prompt": "x"}, headers=makes).status_code == 202
        both = bearer(added(served, "generate", "read"))
        answer = served.client.post("/v1/jobs", json={"kind": "train"}, headers=both)
        assert answer.status_code == 403 and "train" in answer.json()["error"]["message"]


def test_nobody_sees_what_belongs_to_somebody_else(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        mine, other, admin = (
            bearer(added(served, *some)) for some in (("generate", "read"), ("generate", "read"), ("admin",))
        )
        job = served.client.post("/v1/jobs", json={"prompt": "x"}, headers=mine).json()["id"]
        files = {"file": ("a.png", png(), "image/png")}
        picture = served.client.post("/v1/images", files=files, headers=mine).json()["id"]
        collection = served.client.post("/v1/collections", json={"name": "x"}, headers=mine).json()["id"]
        for method, path in (
            *(("GET", f"/v1/jobs/{job}{rest}") for rest in ("", "/events")),
            *(("POST", f"/v1/jobs/{job}/{what}") for what in ("cancel", "stop")),
            *(("GET", f"/v1/images/{picture}{rest}") for rest in ("", "/thumbnail", "/metadata", "/lineage")),
            ("DELETE", f"/v1/images/{picture}"),
            ("POST", f"/v1/images/{picture}/restore"),
            ("DELETE", f"/v1/collections/{collection}"),
        ):
            assert served.client.request(method, path, headers=other).status_code == 404, path
        asked = {"prompt": "x", "kind": "edit", "inputs": {"init": picture}}
        assert served.client.post("/v1/jobs", json=asked, headers=other).status_code == 404
        assert served.client.post("/v1/images/download", json={"ids": [picture]}, headers=other).status_code == 404
        assert (
            served.client.patch(f"/v1/images/{picture}", json={"collect": [collection]}, headers=other).status_code
            == 404
        )
        for path in ("/v1/jobs", "/v1/images", "/v1/collections"):
            assert served.client.get(path, headers=other).json()["data"] == [], path
            assert len(served.client.get(path, headers=admin).json()["data"]) >= 1, path
        assert served.client.get(f"/v1/images/{picture}", headers=admin).status_code == 200
        assert served.client.get(f"/v1/images/{picture}", headers=mine).status_code == 200


def test_each_key_has_its_own_bucket(tmp_path: Path) -> None:
    with serving(tmp_path, work=False, submits_per_minute=2) as served:
        one, two = bearer(added(served, "generate")), bearer(added(served, "generate"))
        statuses = [served.client.post("/v1/jobs", json={"prompt": "x"}, headers=one).status_code for _ in range(3)]
        assert statuses == [202, 202, 429]
        assert served.client.post("/v1/jobs", json={"prompt": "x"}, headers=two).status_code == 202


def test_the_pages_session(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        secret = added(served, "generate", "read")
        assert served.client.post("/login", json={"key": "chk_wrong"}).status_code == 401
        answer = served.client.post("/login", json={"key": secret})
        assert answer.json() == {"name": "somebody", "scopes": ["generate", "read"]}
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
        assert secret not in cookie
        assert served.client.get("/v1/jobs").status_code == 200
        foreign = {"Origin": "http://evil.example"}
        assert served.client.post("/v1/jobs", json={"prompt": "x"}, headers=foreign).status_code == 403
        assert served.client.post("/logout").status_code == 204
        value = answer.headers["set-cookie"].partition(";")[0]
        assert served.client.get("/v1/jobs", headers={"Cookie": value}).status_code == 401  # ended, not only forgotten


def test_a_revoked_keys_session_ends(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        secret = added(served, "read")
        added(served, "read", name="another")
        served.client.post("/login", json={"key": secret})
        assert served.client.get("/v1/jobs").status_code == 200
        served.service.store.keys.revoke("somebody")
        assert served.client.get("/v1/jobs").status_code == 401


def test_basic_is_for_a1111_alone(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        secret = added(served, "read", "generate")
        basic = "Basic " + base64.b64encode(f"user:{secret}".encode()).decode()
        assert served.service.access.who(basic, basic=True).name == "somebody"
        for said, allowed in (
            (basic, False),
            ("Basic !!", True),
            ("Basic " + base64.b64encode(b"\xff").decode(), True),
        ):
            with pytest.raises(UnauthorizedError):
                served.service.access.who(said, basic=allowed)


def test_buckets_fill_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("chashka.app.guard.access.time.monotonic", lambda: now[0])
    buckets, who = Buckets(6), Who("key_1", "x", frozenset())
    for _ in range(6):
        buckets.take(who)
    with pytest.raises(TooManyError) as refused:
        buckets.take(who)
    assert refused.value.retry_after == pytest.approx(10.0)
    now[0] += 10.1
    buckets.take(who)
    with pytest.raises(TooManyError):
        buckets.take(who)
    Buckets(0).take(who)


def test_several_are_counted_at_once_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chashka.app.guard.access.time.monotonic", lambda: 100.0)
    buckets, who = Buckets(6, "cups", "cups_per_minute"), Who("key_1", "x", frozenset())
    buckets.take(who, 4)
    with pytest.raises(TooManyError, match="more than 6 cups were asked for in a minute") as refused:
        buckets.take(who, 3)
    assert refused.value.retry_after == pytest.approx(10.0)
    buckets.take(who, 2)
    buckets.give_back(who, 3)
    buckets.take(who, 3)
    with pytest.raises(InputError, match=r"counts as 7 cups; allowed: at most 6 in a minute \(cups_per_minute\)"):
        buckets.take(who, 7)
    with pytest.raises(TooManyError):
        buckets.take(who)


def test_uploads_and_looking_at_files_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path, token="t" * 43, work=False, uploads_per_minute=5) as served:
        form = {"headers": served.headers, "files": {"file": ("cup.png", png(), "image/png")}}
        asked = ["/v1/images", "/v1/verify"] * 4
        answers = [served.client.post(path, **form) for path in asked]
        assert [answer.status_code for answer in answers] == [201, 200, 201, 200, 201, 429, 429, 429]
        refused = answers[-1]
        assert refused.json()["error"]["code"] == "too_many" and 1 <= int(refused.headers["retry-after"]) <= 13
        assert "more than 5 uploaded pictures were asked for in a minute" in refused.json()["error"]["message"]
        limits = served.client.get("/v1/limits").json()["limits"]
        assert limits["uploads_per_minute"] == 5
        served.submit()  # jobs have a bucket of their own
        form["headers"] = served.headers | bearer("t" * 43)  # commands on this machine may bring many
        assert {served.client.post("/v1/images", **form).status_code for _ in range(20)} == {201}


def test_a_key_of_another_process_is_noticed_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, work=False) as served:
        access = Access(Settings(), served.service.store.keys)
        assert not access.needed()
        served.service.store.keys.add("elsewhere")
        monkeypatch.setattr("chashka.app.guard.access._REMEMBERED", 0.0)
        access.changed()
        assert access.needed()


def test_the_audit_of_a_shared_server_is_read_by_admins_alone(tmp_path: Path) -> None:
    """Who was refused what, and who ticked consent for which picture; page after page, without words."""
    prompt, data = "голый ребёнок", png()
    with serving(tmp_path, policy="shared") as served:
        maker, admin = (bearer(added(served, *some)) for some in (("generate", "read"), ("admin",)))
        served.client.post("/v1/jobs", json={"prompt": prompt}, headers=maker)
        served.client.post("/v1/images", files={"file": ("a.png", data)}, data={"consent": "true"}, headers=maker)
        assert served.client.get("/v1/audit", headers=maker).status_code == 403
        assert served.client.get("/v1/audit").status_code == 401
        answer = served.client.get("/v1/audit?limit=3", headers=admin)
        page = answer.json()
        assert [note["what"] for note in page["data"]] == ["consent", "refused: minors", "key added"]
        assert [note["about"] for note in page["data"][:2]] == [
            hashlib.sha256(content).hexdigest() for content in (data, prompt.encode())
        ]
        assert len({note["owner"] for note in page["data"][:2]}) == 1 and "ребёнок" not in answer.text
        rest = served.client.get(f"/v1/audit?before={page['next']}", headers=admin).json()
        assert [note["what"] for note in rest["data"]] == ["key added"] and rest["next"] is None
        assert served.client.get("/v1/audit?limit=0", headers=admin).status_code == 422
