"""BE-14 to BE-19: `llm-proxy logins` tells what there is, whose, until when, and never a token."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config.built_in import BUILT_IN
from tests.backends.logins.vendor import jwt
from tests.server.process import run

ACCESS, REFRESH = "planted-access-token-0001", "planted-refresh-token-0002"
LOGINS = [type_ for type_, built_in in BUILT_IN.items() if built_in.login]


def wrote(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def codex(home: Path, *, ends_in: float = 3 * 3600 + 60, email: str = "", **tokens: object) -> str:
    """A login of the Codex CLI; its access token."""
    access = jwt(exp=int(time.time() + ends_in), planted=ACCESS)
    identity = jwt(email=email) if email else ""
    held = {"access_token": access, "refresh_token": REFRESH, "account_id": "acc-0123456789", "id_token": identity}
    wrote(home / ".codex" / "auth.json", {"tokens": held | tokens})
    return access


def claude(home: Path, ends_in: float = 7200.0) -> None:
    ends = int((time.time() + ends_in) * 1000)
    own = {"accessToken": ACCESS, "refreshToken": REFRESH, "expiresAt": ends, "subscriptionType": "max"}
    wrote(home / ".claude" / ".credentials.json", {"claudeAiOauth": own})


def google(home: Path, ends_in: float = 7200.0) -> None:
    ends = int((time.time() + ends_in) * 1000)
    own = {
        "access_token": ACCESS,
        "refresh_token": REFRESH,
        "expiry_date": ends,
        "id_token": jwt(email="me@gmail.test"),
    }
    wrote(home / ".gemini" / "oauth_creds.json", own)


def qwen(home: Path, ends_in: float = 7200.0) -> None:
    ends = int((time.time() + ends_in) * 1000)
    wrote(home / ".qwen" / "oauth_creds.json", {"access_token": ACCESS, "refresh_token": REFRESH, "expiry_date": ends})


def text_of(home: Path, *flags: str, config: str = "", **environ: str) -> str:
    """What the command prints. Whatever it is, it is no token and the exit status is 0."""
    if config:
        wrote(home / "config.yaml", config)
    ended = run(home, ["logins", *flags], environ)
    text, said = ended.stdout.decode(), ended.stderr.decode()
    assert (ended.returncode, said) == (0, "")
    for planted in (ACCESS, REFRESH, "eyJ"):  # the latter begins every JWT
        assert planted not in text
    return text


def rows_of(home: Path, *, config: str = "", **environ: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(text_of(home, "--json", config=config, **environ))
    return rows


def row_of(home: Path, type_: str, *, config: str = "", **environ: str) -> dict[str, Any]:
    (row,) = [row for row in rows_of(home, config=config, **environ) if row["type"] == type_]
    return row


def files_below(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


# nothing there


def test_nothing_there_is_exit_0_and_says_what_to_run(tmp_path: Path) -> None:
    text = text_of(tmp_path)
    assert text.startswith("no login was found on this machine\n")
    assert "docs/logins.md" in text.splitlines()[-1]
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert list(lines) == LOGINS
    for type_, line in lines.items():
        assert line.endswith(f"run `{BUILT_IN[type_].login}`")


def test_the_list_for_programs_has_every_type_also_when_nothing_is_there(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    assert [row["type"] for row in rows] == LOGINS
    assert {row["state"] for row in rows} == {"missing"}
    assert [row["backends"] for row in rows] == [[{"id": id, "mentioned": False, "enabled": True}] for id in LOGINS]


# what a login is


def test_a_valid_login_is_told_with_file_account_end_back_end_and_command(tmp_path: Path) -> None:
    codex(tmp_path, email="me@example.test")
    lines = text_of(tmp_path).partition("\n\n")[0].splitlines()
    assert lines[0] == "openai-oauth"
    told = {line[2:11].strip(): line[13:] for line in lines[1:]}
    assert told["file"] == "~/.codex/auth.json"
    assert told["state"].startswith("valid until ") and "(in 3 h); renewed by the proxy" in told["state"]
    assert told["account"] == "me@example.test"
    assert told["used by"] == "openai-oauth (not in the configuration)"
    assert told["switch on"] == "backends: {openai-oauth: {}} in the configuration file"
    assert told["log in"] == "codex login"


def test_an_account_without_a_mail_address_shows_its_last_four_characters_only(tmp_path: Path) -> None:
    codex(tmp_path)
    assert row_of(tmp_path, "openai-oauth")["account"] == "account …6789"
    assert "acc-0123456789" not in text_of(tmp_path)


def test_the_end_is_in_local_time(tmp_path: Path) -> None:
    claude(tmp_path)
    moment = datetime.fromisoformat(row_of(tmp_path, "anthropic-oauth", TZ="Asia/Tokyo")["expires"])
    assert abs(moment.timestamp() - time.time() - 7200) < 60
    assert moment.utcoffset() == datetime.fromisoformat("2026-01-01T00:00:00+09:00").utcoffset()


@pytest.mark.parametrize(
    ("login", "type_", "file", "account"),
    [
        (claude, "anthropic-oauth", "~/.claude/.credentials.json", "plan max"),
        (google, "gemini-cli-oauth-personal", "~/.gemini/oauth_creds.json", "me@gmail.test"),
        (google, "gemini-cli-acp", "~/.gemini/oauth_creds.json", "me@gmail.test"),
        (qwen, "qwen-oauth", "~/.qwen/oauth_creds.json", ""),
    ],
)
@pytest.mark.parametrize(("ends_in", "state"), [(7200.0, "valid"), (-7200.0, "expired")])
def test_each_kind_is_read(
    tmp_path: Path, login: Any, type_: str, file: str, account: str, ends_in: float, state: str
) -> None:
    login(tmp_path, ends_in)
    row = row_of(tmp_path, type_)
    assert (row["file"], row["state"], row["account"]) == (file, state, account)
    assert row["command"] == BUILT_IN[type_].login


def test_a_key_in_the_place_of_a_login_is_called_one_and_not_shown(tmp_path: Path) -> None:
    wrote(tmp_path / ".codex" / "auth.json", {"OPENAI_API_KEY": ACCESS})
    wrote(tmp_path / ".anthropic" / "oauth_creds.json", {"api_key": ACCESS})
    for row in rows_of(tmp_path)[:2]:
        assert (row["state"], row["account"], row["expires"]) == ("valid", "API key", None)


def test_a_token_in_the_wrong_place_is_not_shown_either(tmp_path: Path) -> None:
    own = {"accessToken": ACCESS, "refreshToken": REFRESH, "subscriptionType": f"{REFRESH} \x1b[31m{ACCESS}"}
    wrote(tmp_path / ".claude" / ".credentials.json", {"claudeAiOauth": own})
    account = row_of(tmp_path, "anthropic-oauth")["account"]
    assert account == "plan ***  [31m***"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ('{"tokens": {"access_token": "' + ACCESS, "holds no complete JSON"),
        ({"tokens": {"access_token": f"{ACCESS}\n{ACCESS}", "account_id": "acc-1"}}, "characters that no token has"),
        (f'["{ACCESS}"]', "holds no JSON object"),
        ({"tokens": {"refresh_token": REFRESH}}, "holds neither `tokens.access_token` nor `OPENAI_API_KEY`"),
        ({"tokens": {"access_token": ACCESS, "refresh_token": REFRESH}}, "names no account"),
    ],
)
def test_a_file_without_a_login_is_unreadable_and_says_why(tmp_path: Path, content: object, said: str) -> None:
    wrote(tmp_path / ".codex" / "auth.json", content)
    row = row_of(tmp_path, "openai-oauth")
    assert row["state"] == "unreadable" and said in row["problem"]
    assert "; run `codex login`" in text_of(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are POSIX's")
def test_a_pipe_in_the_file_s_place_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    os.mkfifo(tmp_path / ".codex" / "auth.json")
    row = next(row for row in rows_of(tmp_path) if row["type"] == "openai-oauth")
    assert (row["state"], row["problem"]) == ("unreadable", "is no regular file")


@pytest.mark.parametrize("end", [1e300, 10**18, -(10**18)])
def test_an_end_that_no_calendar_holds_is_left_out(tmp_path: Path, end: float) -> None:
    wrote(tmp_path / ".qwen" / "oauth_creds.json", {"access_token": ACCESS, "expiry_date": end})
    assert row_of(tmp_path, "qwen-oauth")["expires"] is None
    assert f"state      {'valid' if end > 0 else 'expired'}" in text_of(tmp_path)


# who renews it


def test_an_expired_login_names_the_command_unless_somebody_renews_it(tmp_path: Path) -> None:
    qwen(tmp_path, -7200)
    text = text_of(tmp_path)
    assert "expired since " in text and "(2 h ago); renewed by the proxy" in text
    text = text_of(tmp_path, config="backends:\n  qwen-oauth: {refresh: read-only}\n")
    assert "(2 h ago); run `qwen`" in text


def test_google_s_login_is_renewed_by_the_cli_where_there_is_one(tmp_path: Path) -> None:
    google(tmp_path, -60)
    assert row_of(tmp_path, "gemini-cli-oauth-personal")["renewed_by"] == ""
    program = wrote(tmp_path / "bin" / "gemini", f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    assert row_of(tmp_path, "gemini-cli-oauth-personal", PATH=path)["renewed_by"] == "the CLI, which the proxy starts"
    assert row_of(tmp_path, "gemini-cli-acp", PATH=path)["needs"] == ""
    assert not (tmp_path / "started").exists()
    assert row_of(tmp_path, "gemini-cli-acp")["needs"] == "the program gemini, which is not in PATH."
    client = (
        "backends:\n  gemini-cli-oauth-personal: {oauth_client_id: a, oauth_client_secret: '${GOOGLE_CLIENT_SECRET}'}\n"
    )
    row = row_of(tmp_path, "gemini-cli-oauth-personal", config=client, GOOGLE_CLIENT_SECRET="secret-of-the-client")
    assert row["renewed_by"] == "the proxy"


# where it is


def test_codex_home_and_a_configured_path_are_where_the_back_end_looks(tmp_path: Path) -> None:
    codex(tmp_path / "other")
    assert row_of(tmp_path, "openai-oauth")["state"] == "missing"
    row = row_of(tmp_path, "openai-oauth", CODEX_HOME=str(tmp_path / "other" / ".codex"))
    assert (row["state"], row["file"]) == ("valid", "~/other/.codex/auth.json")
    row = row_of(tmp_path, "openai-oauth", config="backends:\n  openai-oauth: {token_path: other/.codex}\n")
    assert (row["state"], row["file"]) == ("valid", "~/other/.codex/auth.json")


def test_an_instance_with_a_file_of_its_own_is_told_apart_and_one_with_the_same_is_not(tmp_path: Path) -> None:
    claude(tmp_path)
    claude(tmp_path / "work")
    config = (
        "backends:\n  second: {type: anthropic-oauth}\n  work: {type: anthropic-oauth, token_path: work/.claude}\n"
        "  idle: {type: anthropic-oauth, token_path: work/.claude, enabled: false}\n"
    )
    rows = [row for row in rows_of(tmp_path, config=config) if row["type"] == "anthropic-oauth"]
    users = {row["file"]: [use["id"] for use in row["backends"]] for row in rows}
    assert users["~/.claude/.credentials.json"] == ["second", "anthropic-oauth"]
    assert users["~/work/.claude/.credentials.json"] == ["work", "idle"]
    assert [row["switch_on"] for row in rows] == ["", ""]
    assert "idle (switched off: backends.idle.enabled)" in text_of(tmp_path)


def test_the_keychain_is_not_looked_into(tmp_path: Path) -> None:
    row = row_of(tmp_path, "anthropic-oauth", config="backends:\n  anthropic-oauth: {macos_keychain: true}\n")
    assert row["file"] == "macOS keychain, item Claude Code-credentials"
    assert row["state"] in ("unknown", "unreadable")  # the latter where there is none


@pytest.mark.parametrize("variable", ["GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", ""])
def test_a_cloud_login_is_found_where_google_s_library_looks(tmp_path: Path, variable: str) -> None:
    folder = tmp_path / "cloud" if variable else tmp_path / ".config" / "gcloud"
    key = {"type": "service_account", "client_email": "robot@project.test", "private_key": ACCESS}
    file = wrote(folder / "application_default_credentials.json", key)
    where = {variable: str(folder if variable == "CLOUDSDK_CONFIG" else file)} if variable else {}
    row = row_of(tmp_path, "gemini-cli-cloud-project", **where)
    assert (row["state"], row["account"]) == ("valid", "robot@project.test")
    assert row["needs"] == "no project is configured; set GOOGLE_CLOUD_PROJECT."
    row = row_of(tmp_path, "gemini-cli-cloud-project", GOOGLE_CLOUD_PROJECT="p", **where)
    assert "GOOGLE_CLOUD_PROJECT" not in row["needs"]


# switched on or not


def test_the_words_that_switch_a_login_on_do_switch_it_on(tmp_path: Path) -> None:
    qwen(tmp_path)
    row = row_of(tmp_path, "qwen-oauth")
    assert row["switch_on"] == "backends: {qwen-oauth: {}}"
    row = row_of(tmp_path, "qwen-oauth", config=row["switch_on"] + "\n")
    assert (row["switch_on"], row["backends"]) == ("", [{"id": "qwen-oauth", "mentioned": True, "enabled": True}])


def test_a_login_that_the_configuration_wants_and_is_missing_is_told_in_full(tmp_path: Path) -> None:
    text = text_of(tmp_path, "--default-backend", "openai-codex")  # another name of openai-oauth
    assert text.startswith("openai-oauth\n  file       ~/.codex/auth.json\n  state      missing; run `codex login`\n")
    assert "switch on" not in text
    assert "  openai-oauth " not in text.partition("not found")[2]


# what it leaves alone


def test_no_file_is_written_or_changed(tmp_path: Path) -> None:
    codex(tmp_path, ends_in=-60)
    claude(tmp_path, -60)
    google(tmp_path, -60)
    qwen(tmp_path, -60)
    before = files_below(tmp_path)
    text_of(tmp_path)
    text_of(tmp_path, "--json")
    assert files_below(tmp_path) == before


def test_wrong_use_is_exit_2_and_the_help_tells_the_states(tmp_path: Path) -> None:
    ended = run(tmp_path, ["logins", "--no-such-flag"])
    assert ended.returncode == 2 and b"--no-such-flag" in ended.stderr
    ended = run(tmp_path, ["logins", "--help"])
    text = ended.stdout.decode()
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert text.startswith("usage: llm-proxy logins") and "--json" in text and "unreadable" in text


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_a_terminal_gets_colour_and_a_pipe_does_not(tmp_path: Path) -> None:
    import pty
    import subprocess

    from tests.server.process import command, environment

    qwen(tmp_path)
    assert "\x1b" not in text_of(tmp_path, TERM="xterm")
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            command("logins"), cwd=tmp_path, env=environment(tmp_path, {"TERM": "xterm"}), stdout=theirs, timeout=30, check=True
        )  # fmt: skip
        shown = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"\x1b[1mqwen-oauth\x1b[0m" in shown and b"\x1b[32mvalid\x1b[0m" in shown
