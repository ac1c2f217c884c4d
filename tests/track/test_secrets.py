"""Secrets: what is found, what is left alone, and that no input makes the search slow."""

from __future__ import annotations

import os
import random
import string
import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gittrack.track import secrets
from gittrack.track.secrets import (
    REDACTED,
    is_secret_name,
    looks_secret,
    redact_args,
    redact_text,
    redact_url,
    redact_value,
)


def made_up(length: int, alphabet: str = string.ascii_letters + string.digits, seed: int = 7) -> str:
    """A random string, so that this file itself holds nothing that a scanner would report."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


TOKENS = {
    "AWS": "AKIA" + made_up(16, string.ascii_uppercase + "234567"),
    "AWS session": "ASIA" + made_up(16, string.ascii_uppercase + "234567"),
    "GitHub": "ghp_" + made_up(36),
    "GitHub fine": "github_pat_" + made_up(22) + "_" + made_up(59),
    "GitLab": "glpat-" + made_up(20),
    "Slack": "xoxb-" + made_up(12, string.digits) + "-" + made_up(24),
    "Slack hook": "https://hooks.slack.com/services/T" + made_up(9) + "/B" + made_up(9) + "/" + made_up(24),
    "OpenAI old": "sk-" + made_up(48),
    "OpenAI": "sk-proj-" + made_up(60),
    "Anthropic": "sk-ant-api03-" + made_up(80),
    "Hugging Face": "hf_" + made_up(34),
    "Google": "AIza" + made_up(35),
    "Google access": "ya29." + made_up(60),
    "JWT": ".".join(("eyJ" + made_up(20), "eyJ" + made_up(60), made_up(43))),
    "Stripe": "sk_live_" + made_up(24),
    "npm": "npm_" + made_up(36),
    "SendGrid": "SG." + made_up(22) + "." + made_up(43),
    "Databricks": "dapi" + made_up(32, "0123456789abcdef"),
}
KEY = "-----BEGIN {}PRIVATE KEY-----\n" + made_up(64) + "\n" + made_up(64) + "\n-----END\n"

SECRET_NAMES = """
password PASSWORD db_password dbPassword user.password mypassword passwd pwd passphrase secret client_secret secrets
token TOKEN access_token accessToken hf_token HF_TOKEN huggingfacehub_api_token auth_token github_token my_token
api_key apiKey APIKey OPENAI_API_KEY x-api-key apikey secret_key AWS_SECRET_ACCESS_KEY aws_access_key_id private_key
wandb_api_key credentials Authorization jwt db_pass pass api_tokens password2
""".split()

PLAIN_NAMES = """
max_tokens num_tokens tokens n_tokens tokenizer tokenizer_name token_dim token_type_embeddings pad_token eos_token
bos_token cls_token mask_token unk_token image_token forced_bos_token key keys key_dim n_keys primary_key sort_key
foreign_key keyboard forward_pass n_pass num_passes low_pass bypass compass passthrough author authors lr alpha
password_file secret_name token_path credentials_path api_key_env_var secretary tokenization monkey key_value_dim
""".split()


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secret_names_are_known(name: str) -> None:
    assert is_secret_name(name)
    assert redact_value(name, "s3cr3t-value") == REDACTED


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_the_names_of_machine_learning_are_left_alone(name: str) -> None:
    assert not is_secret_name(name)
    assert redact_value(name, "some-value") == "some-value"


@pytest.mark.parametrize("kind", TOKENS)
def test_known_tokens_are_redacted_wherever_they_are(kind: str) -> None:
    token = TOKENS[kind]
    for text in (token, f"use {token} now", f"--x={token}", f'{{"a": "{token}"}}', f"é{token}é"):
        assert token.rpartition("/")[2] not in redact_text(text)
        assert REDACTED in redact_value("note", text)
        assert token.rpartition("/")[2] not in " ".join(redact_args(["train.py", text]))


@pytest.mark.parametrize("kind", TOKENS)
def test_files_with_known_tokens_are_found_and_the_reason_does_not_quote_them(kind: str) -> None:
    reason = looks_secret("src/app.py", f"import x\n\nCLIENT = '{TOKENS[kind]}'\n".encode())
    assert reason is not None
    assert TOKENS[kind][-10:] not in reason


@pytest.mark.parametrize(
    "value", ["", "true", "None", "0.3", "512", "adam", "sha256:" + "0a1b" * 16, "/data/tokens/x", "a=b", "key: value"]
)
def test_ordinary_values_are_kept(value: str) -> None:
    assert redact_value("option", value) == value


def test_a_harmless_value_under_the_name_of_a_secret_is_kept() -> None:
    assert redact_value("use_auth_token", "True") == "True"
    assert redact_value("token", "17") == "17"
    assert redact_value("password", "None") == "None"
    assert redact_value("password", "123456") == REDACTED


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:pw@host/x.git", "https://host/x.git"),
        ("https://ghs_short@host/x.git", "https://host/x.git"),
        ("git+https://me:pw@host/x", "git+https://host/x"),
        ("HTTP://me:p@ss@host", "HTTP://host"),
        ("ssh://git:pw@host:22/x", "ssh://git@host:22/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("redis://:pw@host/0", "redis://host/0"),
        ("postgresql://u:p%40w@db/x", "postgresql://u@db/x"),
        ("git@github.com:me/x.git", "git@github.com:me/x.git"),
        ("/home/me@work/x", "/home/me@work/x"),
        ("https://host/x?a=1&token=abc&b=2", f"https://host/x?a=1&token={REDACTED}&b=2"),
        ("https://host/x?sv=2&sig=aGk%3D", f"https://host/x?sv=2&sig={REDACTED}"),
        ("https://host/x?X-Amz-Signature=00ff", f"https://host/x?X-Amz-Signature={REDACTED}"),
        ("https://host/a/b@c?max_tokens=5", "https://host/a/b@c?max_tokens=5"),
    ],
)
def test_urls_lose_their_credentials_only(url: str, clean: str) -> None:
    assert redact_url(url) == clean
    assert redact_text(f"from {url} on") == f"from {clean} on"


@pytest.mark.parametrize(
    ("given_args", "expected"),
    [
        (["--password", "hunter2"], ["--password", REDACTED]),
        (["--token=abc"], [f"--token={REDACTED}"]),
        (["--db-password=a b c"], [f"--db-password={REDACTED}"]),
        (["API_KEY=abc"], [f"API_KEY={REDACTED}"]),
        (["+db.password=x", "++hub.token=y"], [f"+db.password={REDACTED}", f"++hub.token={REDACTED}"]),
        (["-e", "HF_TOKEN=abc"], ["-e", f"HF_TOKEN={REDACTED}"]),
        (["--env=API_KEY=abc"], [f"--env=API_KEY={REDACTED}"]),
        (["--use-token", "--lr", "0.1"], ["--use-token", "--lr", "0.1"]),
        (["--max-tokens", "100", "--tokenizer", "bert"], ["--max-tokens", "100", "--tokenizer", "bert"]),
        (["--password"], ["--password"]),
        (["-H", "Authorization: Bearer abc.def"], ["-H", f"Authorization: Bearer {REDACTED}"]),
        (["-H", "X-Api-Key: abc"], ["-H", f"X-Api-Key: {REDACTED}"]),
        (['--c={"password": "x y", "lr": 1}'], [f'--c={{"password": "{REDACTED}", "lr": 1}}']),
        (["https://u:p@h/x", "s3://b/k"], ["https://h/x", "s3://b/k"]),
        ([], []),
    ],
)
def test_command_lines(given_args: list[str], expected: list[str]) -> None:
    assert redact_args(given_args) == expected


@given(st.lists(st.text()))
def test_a_command_line_keeps_its_shape_and_redaction_is_stable(argv: list[str]) -> None:
    once = redact_args(argv)
    assert len(once) == len(argv)
    assert redact_args(once) == once


@given(st.text(), st.text(min_size=1))
def test_no_password_survives_under_its_name(prefix: str, password: str) -> None:
    value = prefix + password
    kept = redact_value("password", value)
    assert kept == REDACTED or kept.strip().lower() in secrets._HARMLESS


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_file_gets_an_answer(head: bytes, path: str) -> None:
    reason = looks_secret(path, head)
    assert reason is None or reason


@pytest.mark.parametrize(
    "path",
    """
    .env conf/.ENV .env.local prod.env .env. id_rsa id_ed25519.bak keys/server.pem tls.KEY a.p12 .netrc .pypirc
    credentials credentials.json .aws/credentials x\\.kube\\config kubeconfig kubeconfig.yaml secrets.yaml secret.txt
    .streamlit/secrets.toml kaggle.json my-service-account-1.json service_account.json client_secret_1.json
    .git-credentials .docker/config.json
    """.split(),
)
def test_names_of_secret_files(path: str) -> None:
    assert looks_secret(path, b"") is not None


@pytest.mark.parametrize(
    "path",
    """
    train.py secrets.py credentials.py .env.example id_rsa.pub environment.yml keyboard.json config.json data/config
    tokens.txt tokenizer.json config.yaml monkey.py requirements.txt .gitignore Makefile keys.py
    """.split(),
)
def test_names_of_ordinary_files(path: str) -> None:
    assert looks_secret(path, b"x = 1\n") is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.txt", KEY.format("")),
        ("a.txt", KEY.format("RSA ")),
        ("a.py", repr(KEY.format("OPENSSH "))),
        ("key.asc", KEY.format("PGP ").replace("KEY--", "KEY BLOCK--")),
        ("a.json", '{"type": "service_account", "private_key": "x"}'),
        ("cluster", "users:\n- user:\n    client-key-data: abc\n"),
        ("t.txt", made_up(40) + "\n"),
        ("a.py", f'WANDB_API_KEY = "{made_up(40, "0123456789abcdef")}"\n'),
        ("a.ipynb", rf'"source": ["my_api_key = \"{made_up(40)}\"\n"]'),
        ("a.sh", f"export MY_TOKEN={made_up(32)}\n"),
        ("a.yml", f"secret_key: {made_up(40)}\n"),
        ("a.py", f"client_secret='{made_up(36, string.ascii_lowercase + string.digits)}'\n"),
        ("a.py", "engine = connect('postgresql://me:tr0ub4dor@db/x')\n"),
        ("config.yaml", "db:\n  password: correcthorse\n"),
        ("config.json", '{"a": 1, "smtp_password": "correcthorse"}'),
    ],
)
def test_contents_of_secret_files(path: str, text: str) -> None:
    assert looks_secret(path, text.encode()) is not None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", 'HEADER = "-----BEGIN RSA PRIVATE KEY-----"\nif HEADER in text: raise ValueError\n'),
        ("a.md", "Set `AKIAIOSFODNN7EXAMPLE` and `ghp_" + "x" * 36 + "`\n"),
        ("a.py", "token = tokenizer.convert_ids_to_tokens_2_3_4(ids)\n"),
        ("a.py", 'api_key = os.environ["OPENAI_API_KEY"]\n'),
        ("a.py", "secret_key = get_the_Secret2_From3_Vault4(name)\n"),
        ("a.py", 'pad_token = "' + made_up(24) + '"\n'),
        ("RECORD", f"a.py,sha256={made_up(43)},12\n"),
        ("checksum", made_up(64, "0123456789abcdef") + "\n"),
        ("version", "checkpoint-resnet50-v2-epoch100\n"),
        ("config.yaml", "password: ${DB_PASSWORD}\nmodel: resnet\n"),
        ("config.yaml", "password: null\napi_password: <your password>\n"),
        ("train.py", 'parser.add_argument("--password", help="password: the one of the database")\n'),
        ("a.md", "postgresql://user:password@localhost/db and http://user:pass@host\n"),
        ("notebook.ipynb", '{"image/png": "' + made_up(4000) + '"}'),
        ("style.css", ".sk-estimator-doc-link-container-0123456789-abcdefghij { color: red }\n"),
    ],
)
def test_contents_of_ordinary_files(path: str, text: str) -> None:
    assert looks_secret(path, text.encode()) is None


def test_few_ordinary_sources_are_taken_for_secrets() -> None:
    """Every Python source of scikit-learn, numpy, pip and hypothesis: at most one in a thousand is held back."""
    site = Path(sysconfig.get_path("purelib"))
    sources = [path for package in ("sklearn", "pip", "hypothesis", "numpy") for path in (site / package).rglob("*.py")]
    found = [(path, reason) for path in sources if (reason := looks_secret(str(path), path.read_bytes()))]
    assert len(sources) > 1000
    assert len(found) <= len(sources) // 1000, found


HOSTILE = [
    "a", "aB1", "eyJ", "eyJaaaaaaaa.", "ya29.", "SG.", "sk-", "hf_", "token=", "token = ", '"token":', "password: ",
    'key="', "://", "://a:", "://a@", "a=", "a='", '"a":', "?a=", "&", "-----BEGIN PRIVATE KEY-----", "=", "= ", ":  ",
    " ", "authorization: ", "ghp_", "xoxb-", "passwordpassword", "_", "=a'\"", "--a=", "\ud800", "secret_",
    'token="aB3',
]  # fmt: skip


SIZE = 2**20 if os.environ.get("GITTRACK_FAULTS") == "full" else 2**18


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_long_hostile_text_takes_linear_time(piece: str) -> None:
    """Every search ends in seconds, even on a busy machine; a quadratic one would take a quarter of an hour for a
    megabyte, and a minute for a quarter of that."""
    text = piece * (SIZE // len(piece))
    data = text.encode("utf-8", "surrogatepass")
    start = time.process_time()
    looks_secret("a.json", data)
    looks_secret(text, b"")
    redact_text(text)
    redact_url("http://" + text)
    redact_args([text, "--token", text])
    redact_value(text, text)
    is_secret_name(text)
    assert time.process_time() - start < 20 * SIZE / 2**20
