"""Export, import, and what is refused on the way in: nothing of it is ever written."""

from __future__ import annotations

import json
import sqlite3
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from token_registry import Registry

from token_store.entities import Scope, ServedPrediction
from token_store.exchange import SharedToken, pack, unpack
from token_store.sql.bundles import SqlBundles


def shared(registry: Registry, word: str = "cat", **fields: Any) -> SharedToken:
    mark = registry.attributor.fingerprint
    one = SharedToken(word, {"space": mark.space, "model": mark.model, "settings": {}}, registry.embedding(word, 0.1))
    return replace(one, **fields)


def nothing_is_written(registry: Registry) -> None:
    store = registry.store()
    try:
        assert store.list_tokens() == [] and store.audit() == []
    finally:
        store.close()


def test_out_and_in_again(registry: Registry, tmp_path: Path, attributor: object) -> None:
    for word in ("cat", "dog"):
        registry.add(word, push=0.1)
    out = tmp_path / "both.safetensors"
    told = registry.json("export", "--out", out, "--licence", "CC-BY-4.0")
    assert told["files"] == [str(out)] and [t["class_name"] for t in told["tokens"]] == ["cat", "dog"]

    other = Registry(tmp_path / "other", registry.attributor)
    first = other.json("import", out)["imported"]
    assert [(i["class_name"], i["version"], i["state"], i["aliases"]) for i in first] == [
        ("cat", 1, "unproven", ["candidate", "imported"]),
        ("dog", 1, "unproven", ["candidate", "imported"]),
    ]
    (cat,) = other.json("show", "cat")
    assert cat["provenance"]["licence"] == "CC-BY-4.0" and cat["metrics"]["claimed"]["train_iou"] == 0.75
    assert "train_iou" not in cat["metrics"] and cat["fingerprint"]["space"] == registry.attributor.fingerprint.space
    assert cat["sha256"] == registry.json("show", "cat")[0]["sha256"]
    again = other.json("import", out, "--activate")["imported"]
    assert [(i["fresh"], i["version"], "active" in i["aliases"]) for i in again] == [(False, 1, True)] * 2
    assert "CC-BY-4.0" in other.run("show", "cat")[0]
    # A candidate that waits for a human's word keeps its place.
    other.add("cat", push=0.2, aliases=("candidate",))
    (tmp_path / "third.safetensors").write_bytes(pack([shared(other, embedding=other.embedding("cat", 0.15))]))
    assert other.json("import", tmp_path / "third.safetensors")["imported"][0]["aliases"] == ["imported"]
    assert other.json("list", "--name", "cat")[0]["aliases"] == {"active": 1, "candidate": 2, "imported": 3}
    # The licence goes on with the token.
    other.run("export", "cat", "--out", tmp_path / "again.safetensors")
    (on,) = unpack((tmp_path / "again.safetensors").read_bytes())
    assert on.licence == "CC-BY-4.0" and on.provenance["lineage"] == "imported"


def test_a_folder_holds_a_file_a_token_and_comes_back(registry: Registry, tmp_path: Path) -> None:
    for name in ("cat", "tea/pot", "CAT"):
        registry.add("cat", aliases=()) if name == "never" else None
        store = registry.store()
        from token_store.entities import NewTokenVersion

        mark = registry.attributor.fingerprint
        new = NewTokenVersion({"space": mark.space, "model": mark.model}, registry.embedding("cat", 0.1), {}, {})
        store.add_version(Scope.everywhere(), name, new, aliases=("active",))
        store.close()
    files = registry.json("export", "--out", tmp_path / "folder")["files"]
    assert len({Path(f).name.lower() for f in files}) == 3 and all(Path(f).parent == tmp_path / "folder" for f in files)
    other = Registry(tmp_path / "other", registry.attributor)
    found = other.json("import", tmp_path / "folder", "--connection", "default", "--project", "3")["imported"]
    assert sorted(i["class_name"] for i in found) == ["CAT", "cat", "tea/pot"] and found[0]["scope"] == "default/3"


def test_export_says_what_stops_it(registry: Registry, tmp_path: Path) -> None:
    registry.add("cat")
    out = tmp_path / "cat.safetensors"
    registry.run("export", "cat", "--out", out)
    assert "--force" in registry.run("export", "cat", "--out", out, code=2)[1]
    registry.run("export", "cat", "--out", out, "--force")
    assert "SPDX" in registry.run("export", "cat", "--out", out, "--licence", "do what you like!", code=2)[1]
    assert "zebra" in registry.run("export", "zebra", "--out", out, "--force", code=2)[1]
    assert "No token matches" in registry.run("export", "--tag", "none", "--out", out, "--force", code=2)[1]
    (tmp_path / "file").write_text("")
    assert "cannot be written" in registry.run("export", "cat", "--out", tmp_path / "file" / "x", code=2)[1]


def test_an_export_tells_nothing_of_people_and_places(registry: Registry, tmp_path: Path) -> None:
    secret = "anna.smith@acme.example", "acme-hospital", "/home/anna/models", "https://ls.acme.example/tasks/7", "Zoë"
    mark = registry.attributor.fingerprint
    registry.add(
        "cat",
        Scope("acme-hospital", "Zoë"),
        created_by=secret[0],
        source_corrections=(123456789,),
        fingerprint={"space": mark.space, "model": "/home/anna/models/tiny", "parts": {"text encoder": "a" * 64, secret[2]: secret[1]}, "settings": {"path": secret[2], "side": 224}},
        recipe={"optimizer": "adam", "note": secret[3], "epochs": 100, secret[0]: 1},
        metrics={"train_iou": 0.5, "reason": f"said {secret[0]}", "task": 987654321, "evidence": {"set_aside": [987654321], "contradicts": True}, "held_out": {secret[3]: 0.5}, "host": secret[1]},
        provenance={"kind": "imported", "origin": {"host": secret[1]}, "licence": "MIT"},
    )  # fmt: skip
    registry.run("tag", "cat", "owner=anna.smith@acme.example", "--connection", "acme-hospital", "--project", "Zoë")
    out = tmp_path / "cat.safetensors"
    registry.run("export", "cat", "--out", out, "--connection", "acme-hospital", "--project", "Zoë")
    data = out.read_bytes()
    text = json.dumps(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"], ensure_ascii=False)
    for needle in (*secret, "anna", "acme", "home", "123456789", "987654321", "Zo", str(tmp_path)):
        assert needle not in text and needle.encode() not in data, needle
    (token,) = unpack(data)
    assert token.fingerprint["model"] == "tiny" and token.fingerprint["settings"] == {"side": 224}
    assert token.fingerprint["parts"] == {"text encoder": "a" * 64} and token.metrics["evidence"] == {
        "contradicts": True
    }
    assert token.metrics["train_iou"] == 0.5 and token.recipe == {"optimizer": "adam", "epochs": 100}


def poisons(registry: Registry) -> dict[str, tuple[bytes, str]]:
    """Files of the right form that hold poison, and what the refusal says."""
    good = shared(registry)
    start = good.embedding[0]
    rng = np.random.default_rng(0)
    width = len(start)
    noise = rng.standard_normal((2, width)).astype(np.float32)
    unit = noise[1] / np.linalg.norm(noise[1]) * np.linalg.norm(good.embedding[1])
    whole = pack([good])

    def forged(embedding: np.ndarray) -> bytes:
        return pack([replace(good, embedding=embedding.astype(np.float32))])

    nan = bytearray(whole)
    nan[-4:] = struct.pack("<f", float("nan"))
    tampered = bytearray(whole)
    tampered[-2] ^= 16
    slipped = whole.replace(b'\\"class_name\\":\\"cat\\"', b'\\"class_name\\":\\"../\\"')
    other = replace(good, fingerprint={"space": "0" * 64, "model": "sd-turbo"})
    parts = {**registry.attributor.fingerprint.parts, "text encoder": "0" * 64}
    foreign = replace(good, fingerprint={**other.fingerprint, "parts": parts})
    return {
        "random": (forged(noise), "random numbers"),
        "random class of a word's length": (forged(np.stack([start, unit])), "random numbers"),
        "shuffled": (forged(np.stack([start, rng.permutation(good.embedding[1])])), "random numbers"),
        "nothing": (forged(good.embedding * 1e-6), "length"),
        "too loud": (forged(good.embedding * 100), "length"),
        "NaN": (bytes(nan), "sha256"),
        "wrong width": (forged(rng.standard_normal((2, 768))), "768 wide"),
        "wrong fingerprint": (pack([other]), "another embedding space .000000000000, base model sd-turbo"),
        "another text encoder": (pack([foreign]), "text encoder is not this base model's"),
        "tampered": (bytes(tampered), "does not match its sha256"),
        "zip slip": (slipped, "sha256"),
        "2 GB header": (struct.pack("<Q", 2 << 30) + b"{}", "header of 2147483648 bytes"),
    }


KINDS = ["random", "random class of a word's length", "shuffled", "nothing", "too loud", "NaN", "wrong width",
         "wrong fingerprint", "another text encoder", "tampered", "zip slip", "2 GB header"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_poison_is_refused_with_a_reason_and_nothing_is_written(registry: Registry, tmp_path: Path, kind: str) -> None:
    data, reason = poisons(registry)[kind]
    path = tmp_path / "in" / "poison.safetensors"
    path.parent.mkdir()
    path.write_bytes(data)
    _, sentence = registry.run("import", path, code=2)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(sentence)
    nothing_is_written(registry)
    assert sorted(p.name for p in tmp_path.rglob("*") if "state" not in p.parts) == ["in", "poison.safetensors"]


def test_a_forged_name_that_leads_elsewhere_is_refused(registry: Registry, tmp_path: Path) -> None:
    """As above, with all checksums made to fit."""
    import hashlib

    data = pack([shared(registry)])
    meta = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    meta["tokens"] = meta["tokens"].replace('"class_name":"cat"', '"class_name":"../../../etc/cron.d/x"')
    meta["sha256"] = hashlib.sha256(meta["tokens"].encode()).hexdigest()
    (tmp_path / "x.safetensors").write_bytes(safetensors.numpy.save(safetensors.numpy.load(data), meta))
    assert "leads elsewhere" in registry.run("import", tmp_path / "x.safetensors", code=2)[1]
    assert "leads elsewhere" in registry.run("import", tmp_path / "x.safetensors", "--as", "cat", code=2)[1]
    nothing_is_written(registry)


def test_one_bad_token_refuses_the_whole_bundle(registry: Registry, tmp_path: Path) -> None:
    good, bad = shared(registry, "dog"), poisons(registry)["random"][0]
    (tmp_path / "a.safetensors").write_bytes(pack([good]))
    (tmp_path / "b.safetensors").write_bytes(bad)
    assert "random numbers" in registry.run("import", tmp_path, code=2)[1]
    noise = np.random.default_rng(1).standard_normal(good.embedding.shape).astype(np.float32)
    (tmp_path / "c.safetensors").write_bytes(pack([good, shared(registry, "cat", embedding=noise)]))
    assert "'cat'" in registry.run("import", tmp_path / "c.safetensors", code=2)[1]
    nothing_is_written(registry)


def test_a_disk_that_fills_up_half_way_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction for the bundle: what fails at its third token takes the first two back."""
    tokens = [shared(registry, name) for name in ("cat", "dog", "car")]
    (tmp_path / "three.safetensors").write_bytes(pack(tokens))
    original, calls = SqlBundles._move_alias, []

    def full(self: SqlBundles, session: object, token: object, alias: str, *rest: object, **named: object) -> object:
        calls.append(alias)
        if len(calls) == 5:
            raise sqlite3.OperationalError("database or disk is full")
        return original(self, session, token, alias, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlBundles, "_move_alias", full)
    assert "disk or quota" in registry.run("import", tmp_path / "three.safetensors", code=1)[1]
    nothing_is_written(registry)
    monkeypatch.undo()


def test_activating_an_import_has_open_tasks_predicted_again(registry: Registry, tmp_path: Path) -> None:
    registry.environment["OVAM_LABEL_STUDIO_URL"] = "http://studio"
    old = registry.add("cat", push=0.3)
    (tmp_path / "x.safetensors").write_bytes(pack([shared(registry)]))
    store = registry.store()
    store.put_served([ServedPrediction(Scope("default", "7"), "1", "v", {}, {}, datetime.now(UTC), {"cat": old.id})])
    store.close()
    assert registry.json("import", tmp_path / "x.safetensors")["predicted_again"] == []
    found = registry.json("import", tmp_path / "x.safetensors", "--activate")
    assert (found["imported"][0]["fresh"], found["predicted_again"]) == (False, ["default/7"])
    assert registry.json("list")[0]["aliases"] == {"active": 2, "imported": 2}


def test_links_in_a_folder_are_not_followed(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.safetensors").write_bytes(pack([shared(registry)]))
    (tmp_path / "in" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    assert "0 .safetensors files" in registry.run("import", tmp_path / "in", code=2)[1]


def test_dry_run_and_the_way_round_the_check(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack([shared(registry)]))
    assert registry.json("import", path, "--dry-run")["checked"] == [{"class_name": "cat", "kind": "token"}]
    nothing_is_written(registry)
    path.write_bytes(poisons(registry)["shuffled"][0])
    found = registry.json("import", path, "--no-plausibility", "--as", "noise")
    assert found["imported"][0]["class_name"] == "noise" and found["plausibility_judged"] is False


def test_other_reading_settings_are_warned_of(registry: Registry, tmp_path: Path) -> None:
    mark = registry.attributor.fingerprint
    other = shared(registry, fingerprint={"space": mark.space, "model": mark.model, "settings": {"timesteps": [1]}})
    (tmp_path / "x.safetensors").write_bytes(pack([other]))
    (found,) = registry.json("import", tmp_path / "x.safetensors")["imported"]
    assert "timesteps" in found["warnings"][0]


def test_a_textual_inversion_becomes_a_token(registry: Registry, tmp_path: Path) -> None:
    tokenizer, copy, model = registry.attributor.text._ready()  # type: ignore[attr-defined]
    vectors = model.get_input_embeddings().weight[copy.encode("cat").ids[1:-1]].detach().numpy()
    path = tmp_path / "learned_embeds.safetensors"
    safetensors.numpy.save_file({"<my-cat>": np.ascontiguousarray(vectors)}, path)
    (found,) = registry.json("import", path)["imported"]
    assert found["class_name"] == "my-cat"
    (version,) = registry.json("show", "my-cat")
    assert version["provenance"]["form"] == "textual-inversion" and version["shape"] == [1 + len(vectors), 256]
    safetensors.numpy.save_file({"<sd>": np.ones((2, 768), np.float32)}, path)
    assert "768 wide (Stable Diffusion 1.x)" in registry.run("import", path, code=2)[1]
    safetensors.numpy.save_file({"emb_params": np.ascontiguousarray(vectors)}, path)
    assert "--as NAME" in registry.run("import", path, code=2)[1]
    (tmp_path / "x.bin").write_bytes(b"\x80\x04K\x01.")
    assert "pickle" in registry.run("import", tmp_path / "x.bin", code=2)[1]
