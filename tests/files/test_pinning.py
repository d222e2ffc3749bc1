"""`download --pin`: commit, sizes and checksums of the hub in the catalog's own lines, everything else as it was."""

import json
from dataclasses import replace

import pytest

from tests.hub import Hub
from wan_ui.__main__ import main
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.files import pinning, places
from wan_ui.settings import load_settings, settings, use

COMMIT, SHA = "ab" * 20, "cd" * 32


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose API knows every file of A14B in fp8, and a copy of the catalog."""
    server = Hub().start()
    shipped = load_settings({}).catalog
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(shipped.read_text())
    server.settings = replace(load_settings({}), hub=server.url, catalog=catalog)
    model = load_catalog(catalog)["i2v-a14b"]
    files = {}
    for ref in places.needed_files(model, model.scheme("fp8"), "lightx2v"):
        repo, file = places.split(ref)
        entry = {"rfilename": file, "size": 1234}
        if not file.endswith(".json"):
            entry["lfs"] = {"size": 5_000_000_123, "sha256": SHA}
        files.setdefault(repo, []).append(entry)
    for repo, siblings in files.items():
        server.files[f"/api/models/{repo}/revision/main?blobs=true"] = json.dumps(
            {"sha": COMMIT, "siblings": siblings}
        ).encode()
    server.model = model
    yield server
    server.stop()


def pin(hub, **options):
    return pinning.pin(hub.model, hub.model.scheme("fp8"), hub.settings, "lightx2v", **options)


def test_what_the_hub_says_is_written_and_nothing_else_changes(hub):
    before = hub.settings.catalog.read_text().splitlines()
    changes = pin(hub)
    after = hub.settings.catalog.read_text().splitlines()
    assert len(before) == len(after)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(changes) == 2 + 4, changes  # two repositories, two experts, text encoder, VAE
    assert all(COMMIT in new or SHA in new for _, new in changed)
    model = load_catalog(hub.settings.catalog)["i2v-a14b"]
    scheme = model.scheme("fp8")
    for ref in (scheme.high, scheme.low):
        repo, file = places.split(ref)
        assert model.revision(repo) == COMMIT
        assert (model.known(repo, file).size, model.known(repo, file).sha256) == (5_000_000_123, SHA)
    hub.model = model
    assert pin(hub) == []


def test_a_dry_run_and_a_repository_that_is_not_listed(hub, capsys):
    kept = hub.settings.catalog.read_text()
    assert len(pin(hub, write=False)) == 6 and hub.settings.catalog.read_text() == kept
    start, end = (
        kept.index('[repositories."lightx2v/Wan2.2-Distill-Models"]'),
        kept.index('[repositories."lightx2v/Wan2.2-Distill-Loras"]'),
    )
    hub.settings.catalog.write_text(kept[:start] + kept[end:])
    load_catalog.cache_clear()
    hub.model = load_catalog(hub.settings.catalog)["i2v-a14b"]
    pin(hub)
    model = load_catalog(hub.settings.catalog)["i2v-a14b"]
    assert model.revision("lightx2v/Wan2.2-Distill-Models") == COMMIT
    previous = settings()
    try:
        use(hub.settings)
        assert main(["download", "i2v-a14b", "fp8", "--engine", "lightx2v", "--pin", "--dry-run"]) == 0
    finally:
        use(previous)
    assert capsys.readouterr().out.strip() == "the catalog says what the hub says"


def test_what_the_hub_does_not_have_leaves_the_catalog_alone(hub):
    kept = hub.settings.catalog.read_text()
    api = "/api/models/lightx2v/Wan2.2-Distill-Models/revision/main?blobs=true"
    for answer, words in (
        (json.dumps({"sha": COMMIT, "siblings": []}).encode(), f"commit {COMMIT[:7]} has no wan2.2_i2v_A14b_high"),
        (json.dumps({"sha": "main", "siblings": []}).encode(), "'main' is not a commit"),
        (b"<html>", "not an answer of the hub"),
        (b"[]", "not an answer of the hub"),
    ):
        hub.files[api] = answer
        with pytest.raises(UserError, match=words):
            pin(hub)
    del hub.files[api]
    with pytest.raises(UserError, match="HTTP 404"):
        pin(hub)
    assert hub.settings.catalog.read_text() == kept
