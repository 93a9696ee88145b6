"""The command, as far as it goes without starting an engine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from toploc_proxy.channel.addresses import channel_directory
from toploc_proxy.engines.vllm.serve import command, plugins
from toploc_proxy.engines.vllm.serve.command import make_parser
from toploc_proxy.engines.vllm.serve.options import add_options, settings_from
from toploc_proxy.engines.vllm.serve.plugins import plugin_allow_list, ray_copies
from toploc_proxy.engines.vllm.serve.refusals import refuse_unsupported
from toploc_proxy.engines.vllm.serve.verifier import set_for_verifier
from toploc_proxy.options import check_files
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, OnError, Page, Role, Settings
from vllm.utils.argparse_utils import FlexibleArgumentParser

from toploc.errors import ToplocError, UnsupportedEngine
from toploc.receipts.keys import SigningKey

# Plugins


def entry_points(names: dict[str, list[str]]) -> Any:
    def find(group: str) -> list[EntryPoint]:
        return [EntryPoint(name, "nowhere", group) for name in names.get(group, [])]

    return find


def test_all_installed_plugins_stay_on(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {
        "vllm.general_plugins": ["lora_resolver", "toploc"],
        "vllm.platform_plugins": ["npu"],
        "vllm.io_processor_plugins": ["terratorch"],
        "vllm.stat_logger_plugins": ["stats", "npu"],
        "vllm.endpoint_plugins": ["not asked for"],
    }
    monkeypatch.setattr(plugins, "entry_points", entry_points(installed))
    assert plugin_allow_list(None) == "lora_resolver,toploc,npu,terratorch,stats"


@pytest.mark.parametrize(
    ("given", "allowed"),
    [("", ",toploc"), ("a,b", "a,b,toploc"), ("toploc", "toploc"), ("a,toploc,b", "a,toploc,b")],
)
def test_operators_own_list_is_kept(given: str, allowed: str) -> None:
    assert plugin_allow_list(given) == allowed


def test_groups_are_those_of_vllm() -> None:
    import vllm.plugins

    groups = {value for name, value in vars(vllm.plugins).items() if name.endswith("_PLUGINS_GROUP")}
    assert groups >= set(plugins.PLUGIN_GROUPS)
    assert groups - set(plugins.PLUGIN_GROUPS) <= {"vllm.endpoint_plugins"}


@pytest.mark.parametrize("missing", ["vllm.general_plugins", "vllm.endpoint_plugins"])
def test_a_plugin_that_vllm_would_not_find(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the server would come up and answer without proofs, and nobody would be told."""
    installed = {group: ["toploc"] for group in ("vllm.general_plugins", "vllm.endpoint_plugins") if group != missing}
    monkeypatch.setattr(plugins, "entry_points", entry_points(installed))
    with pytest.raises(UnsupportedEngine, match=f"{missing}.*pip install"):
        command.main(["model"])


def test_our_plugins_are_installed() -> None:
    from importlib.metadata import entry_points

    for group in ("vllm.general_plugins", "vllm.endpoint_plugins"):
        assert plugins.PLUGIN in [entry_point.name for entry_point in entry_points(group=group)]


# Options


def parse(*arguments: str) -> Namespace:
    """As `main` does: our options on the parser of the subcommand `serve`."""
    parser = FlexibleArgumentParser(prog="toploc")
    serve_parser = parser.add_subparsers(dest="subparser").add_parser("serve")
    serve_parser.add_argument("model_tag", nargs="?")
    serve_parser.add_argument("--config")
    serve_parser.add_argument("--api-key", nargs="*")  # as vLLM's
    add_options(serve_parser)
    return parser.parse_args(["serve", *arguments])


def settings(*arguments: str) -> Settings:
    return settings_from(parse("model", *arguments), "/channel")


@pytest.mark.parametrize("text", ["file", "off", "0f" * 32])
def test_digests_of_weights(text: str) -> None:
    assert settings("--toploc-weights-digest", text).weights_digest == text


@pytest.mark.parametrize("text", ["", "on", "0F" * 32, "0f" * 31])
def test_digests_that_are_none(text: str) -> None:
    with pytest.raises(SystemExit):
        settings("--toploc-weights-digest", text)


def test_a_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM takes one."""
    monkeypatch.setenv("VLLM_API_KEY", "one")
    assert settings().keyed


def test_defaults() -> None:
    found = settings()
    assert found.model_dump(exclude={"secret"}) == {
        "channel": "/channel",
        "remote": None,
        "proofs": True,
        "seed_requests": False,
        "on_error": OnError.REPORT,
        "finalize_timeout": 10.0,
        "capture_ttl": 120.0,
        "signing_keys": (),
        "trusted_keys": None,
        "receipts": None,
        "proofs_file": None,
        "weights_digest": "file",
        "role": Role.PROVER,
        "thresholds": None,
        "copy_head": False,
        "verify_concurrency": 64,
        "verify_tokens": 2**17,
        "verify_tokens_beside": 1024,
        "verify_body_bytes": 8 * 2**20,
        "verify_priority": 1,
        "page": Page.OWN,
        "keyed": False,
        "launch": None,
    }
    assert len(found.secret) == 64
    assert found.secret != settings().secret


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--toploc-only-on-request"], {"proofs": False}),
        (["--toploc-seed-requests"], {"seed_requests": True}),
        (["--toploc_on_error=fail"], {"on_error": OnError.FAIL}),
        (["--toploc-on-error", "report"], {}),
        (["--toploc-copy-head"], {"copy_head": True}),
        (["--toploc-role", "verifier"], {"role": Role.VERIFIER, "copy_head": True}),
        (["--toploc-finalize-timeout", "0.5"], {"finalize_timeout": 0.5}),
        (["--toploc-page", "figures"], {"page": Page.FIGURES}),
        (["--api-key", "one", "two"], {"keyed": True}),
        (["--api-key", ""], {}),
    ],
)
def test_options(arguments: list[str], changed: dict[str, object]) -> None:
    skip = {"secret"}
    assert settings(*arguments).model_dump(exclude=skip) == {**settings().model_dump(exclude=skip), **changed}


def test_keys_are_looked_at_before_anything_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, old, store = (str(tmp_path / name) for name in ("key.pem", "old.json", "receipts.db"))
    Path(old).write_text(SigningKey.create(Path(key)).public.model_dump_json())
    signing = ["--toploc-signing-key", key, "--toploc-signing-key", old]
    check_files(parse("model"))
    with caplog.at_level("WARNING", "vllm.toploc"):
        check_files(parse("model", *signing, "--toploc-receipts", store, "--toploc-trusted-keys", old))
        assert "can be read" not in caplog.text
        Path(key).chmod(0o644)
        check_files(parse("model", *signing))
        assert "can be read by others" in caplog.text
    assert settings(*signing, "--toploc-receipts", "x").signing_keys == (key, old)
    assert settings(*signing, "--toploc-receipts", "x").receipts == str(Path.cwd() / "x")
    assert settings("--toploc-proofs", "x").proofs_file == str(Path.cwd() / "x")
    for arguments in (
        ["--toploc-signing-key", old],
        ["--toploc-signing-key", str(tmp_path / "none")],
        [*signing, "--toploc-receipts", str(tmp_path / "none" / "x")],
        ["--toploc-receipts", store],
        ["--toploc-proofs", str(tmp_path / "none" / "x")],
        ["--toploc-trusted-keys", store],
    ):
        with pytest.raises(ToplocError) as caught:
            check_files(parse("model", *arguments))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("only_on_request", "proofs"), [("true", False), ("on", False), ("false", True), ("no", True)])
def test_config_file(tmp_path: Path, only_on_request: str, proofs: bool) -> None:
    """Read as YAML 1.1, whose booleans vLLM turns into a flag or into nothing."""
    config = tmp_path / "serve.yaml"
    config.write_text(f"toploc-only-on-request: {only_on_request}\ntoploc-on-error: fail\ntoploc-finalize-timeout: 3\n")
    found = settings("--config", str(config))
    assert (found.proofs, found.on_error, found.finalize_timeout) == (proofs, OnError.FAIL, 3.0)
    assert settings("--config", str(config), "--toploc-on-error", "report").on_error is OnError.REPORT


@pytest.mark.parametrize(
    "arguments",
    [
        ["--toploc-on-error", "ignore"],
        ["--toploc-on-error", ""],
        ["--toploc-finalize-timeout", "soon"],
        ["--toploc-finalize-timeout", "0"],
        ["--toploc-finalize-timeout=-1"],
        ["--toploc-finalize-timeout", "nan"],
        ["--toploc-finalize-timeout", "inf"],
        ["--toploc-channel", "10.0.0.1:9000"],
        ["--toploc-channel", "tcp://10.0.0.1"],
        ["--toploc-channel", "tcp://10.0.0.1:port"],
        ["--toploc-channel", "ipc:///tmp/x"],
        ["--toploc-unknown"],
    ],
)
def test_bad_options_end_with_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("model", *arguments)
    assert caught.value.code == 2
    assert arguments[0].partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_settings_reach_children_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert Settings.from_environ() is None
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    assert Settings.from_environ() is None
    ours = settings("--toploc-on-error", "fail")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "replaced")
    ours.to_environ()
    assert Settings.from_environ() == ours


@pytest.mark.parametrize("text", ["{}", "x", '{"channel":"/c","unknown":1}', '{"channel":"/c","finalize_timeout":0}'])
def test_damaged_settings_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
    with pytest.raises(ValidationError):
        Settings.from_environ()


# What cannot be served


@pytest.mark.parametrize(
    ("args", "environment", "names"),
    [
        ({"grpc": True}, None, "--grpc"),
        ({"kv_sharing_fast_prefill": True}, None, "--kv-sharing-fast-prefill"),
        ({}, "1", "VLLM_USE_RUST_FRONTEND"),
        ({"prefill_context_parallel_size": 2}, None, "--prefill-context-parallel-size"),
        ({"speculative_config": {"enable_adaptive_verification": True}}, None, "enable_adaptive_verification"),
        ({"speculative_config": {"rejection_sample_method": "synthetic"}}, None, "'synthetic'.*--speculative-config"),
        ({"speculative_config": {"rejection_sample_method": "fly"}}, None, "'fly'.*--speculative-config"),
        ({"logits_processors": ["a.b:C"]}, None, "--logits-processors"),
        ({"toploc_role": "verifier", "tokens_only": True}, None, "--tokens-only"),
        ({"toploc_role": "verifier", "skip_tokenizer_init": True}, None, "--skip-tokenizer-init"),
        ({"enable_elastic_ep": True}, None, "--enable-elastic-ep"),
        ({"distributed_executor_backend": "ray"}, None, "Ray.*--toploc-channel tcp"),
        ({"data_parallel_backend": "ray"}, None, "Ray.*--toploc-channel tcp"),
        ({"nnodes": 2}, None, "--nnodes.*--toploc-channel tcp"),
        ({"headless": True}, None, "--headless.*--toploc-channel tcp"),
        ({"data_parallel_size": 2, "data_parallel_size_local": 1}, None, "size-local.*--toploc-channel tcp"),
        ({"nnodes": 2, "toploc_channel": "tcp://h:1"}, None, "--toploc-channel-secret FILE"),
        ({"headless": True, "toploc_channel": "tcp://h:1"}, None, "--toploc-channel-secret FILE"),
        ({"headless": True, "data_parallel_external_lb": True}, None, "--headless.*--toploc-channel tcp"),
        ({"toploc_channel_secret": "f"}, None, "needs --toploc-channel"),
    ],
)
def test_unsupported_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], environment: str | None, names: str
) -> None:
    monkeypatch.delenv("VLLM_USE_RUST_FRONTEND", raising=False)
    if environment is not None:
        monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", environment)
    with pytest.raises(UnsupportedEngine, match=names) as caught:
        refuse_unsupported(Namespace(**args))
    message = str(caught.value)
    assert message.startswith("toploc: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "args",
    [
        {"distributed_executor_backend": "ray", "toploc_channel": "tcp://h:1"},
        {"nnodes": 2, "toploc_channel": "tcp://h:1", "toploc_channel_secret": "f"},
        {"headless": True, "toploc_channel": "tcp://h:1", "toploc_channel_secret": "f"},
        {"data_parallel_size": 4, "data_parallel_size_local": 2, "data_parallel_hybrid_lb": True},
        {"data_parallel_size": 4, "data_parallel_size_local": 1, "data_parallel_external_lb": True},
        {"data_parallel_size": 4, "data_parallel_size_local": 2, "data_parallel_multi_port_external_lb": True},
        {"data_parallel_size": 2, "data_parallel_size_local": 2},
    ],
)
def test_several_machines_with_a_channel(args: dict[str, Any]) -> None:
    refuse_unsupported(Namespace(**args))


@pytest.mark.parametrize("chunked", [None, True])
def test_seeds_beside_chunked_prefill_on_a_processor(chunked: bool | None) -> None:
    """A seeded request whose prompt is prefilled in chunks ends vLLM's engine there."""
    args = Namespace(toploc_seed_requests=True, enable_chunked_prefill=chunked)
    with pytest.raises(UnsupportedEngine, match="--no-enable-chunked-prefill") as caught:
        refuse_unsupported(args)
    assert "\n" not in str(caught.value)
    args.enable_chunked_prefill = False
    refuse_unsupported(args)


def test_the_secret_of_several_machines(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s" * 32 + "\n")
    shared = ["--toploc-channel", "tcp://[::1]:9", "--toploc-channel-secret", str(file)]
    assert settings(*shared).secret == settings(*shared).secret == "s" * 32
    assert settings(*shared).remote == "tcp://[::1]:9"
    file.write_text("s" * 31)
    for arguments in (shared, [*shared, "--toploc-channel-secret", str(tmp_path / "none")]):
        with pytest.raises(UnsupportedEngine, match="--toploc-channel-secret") as caught:
            settings(*arguments)
        assert "\n" not in str(caught.value)


def test_ray_is_told_what_to_copy() -> None:
    assert ray_copies(None) == ray_copies("") == ENVIRONMENT_VARIABLE
    assert ray_copies("A,B") == f"A,B,{ENVIRONMENT_VARIABLE}"


@pytest.mark.parametrize("environment", [None, "", "0"])
def test_supported(monkeypatch: pytest.MonkeyPatch, environment: str | None) -> None:
    monkeypatch.delenv("VLLM_USE_RUST_FRONTEND", raising=False)
    if environment is not None:
        monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", environment)
    refuse_unsupported(Namespace(grpc=False, kv_sharing_fast_prefill=False))
    refuse_unsupported(Namespace())


DRAFTS = '{"method": "ngram", "num_speculative_tokens": 3, "rejection_sample_method": "%s"}'


def parsed_by_vllm(*arguments: str) -> Namespace:
    from vllm.entrypoints.cli.serve import ServeSubcommand

    parser = FlexibleArgumentParser(prog="toploc")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    return parser.parse_args(["serve", "model", *arguments])


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--speculative-config", DRAFTS % "standard"],
        ["--speculative-config.method", "ngram", "--speculative-config.rejection_sample_method", "block"],
        ["--data-parallel-size=4", "--data-parallel-size-local=1", "--data-parallel-external-lb"],
        ["--data-parallel-size=4", "--data-parallel-size-local=2", "--data-parallel-multi-port-external-lb"],
        ["--tokens-only"],
        ["--skip-tokenizer-init"],
    ],
)
def test_what_vllm_parses_is_supported(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.delenv("VLLM_USE_RUST_FRONTEND", raising=False)
    refuse_unsupported(parsed_by_vllm(*options))


def as_verifier(*arguments: str, role: str = "verifier", graphs: bool = True) -> tuple[object, object]:
    """Prefix caching and the largest graph that a server is started with."""
    _, parser = make_parser()
    args = parser.parse_args(["serve", "model", "--toploc-role", role, *arguments])
    set_for_verifier(args, graphs=graphs)
    return args.enable_prefix_caching, args.max_cudagraph_capture_size


@pytest.mark.parametrize(
    ("options", "caching", "largest"),
    [
        ([], False, 1024),
        (["--enable-prefix-caching"], True, 1024),
        (["--no-enable-prefix-caching"], False, 1024),
        (["--max-cudagraph-capture-size", "256"], False, 256),
        (["--enforce-eager"], False, None),
        (["--cudagraph-capture-sizes", "1", "2"], False, None),
        (["--compilation-config", '{"cudagraph_capture_sizes": [1, 2]}'], False, None),
        (["--compilation-config.max_cudagraph_capture_size", "64"], False, None),
        (["--compilation-config", '{"cudagraph_mode": "PIECEWISE"}'], False, 1024),
    ],
)
def test_a_verifier_sets_what_its_operator_does_not(options: list[str], caching: bool, largest: int | None) -> None:
    assert as_verifier(*options) == (caching, largest)


def test_what_a_verifier_sets_is_said_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "vllm.toploc"):
        assert as_verifier(graphs=False) == (False, None)
        assert [record.getMessage() for record in caplog.records] == [
            "toploc: a verifier, so with --no-enable-prefix-caching; your own flags would be taken instead"
        ]
        caplog.clear()
        assert as_verifier(role="prover") == (None, None)
        assert as_verifier("--enable-prefix-caching", graphs=False) == (True, None)
        assert not caplog.records


def test_a_file_of_options_is_the_operators_word(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("enable-prefix-caching: true\nmax-cudagraph-capture-size: 128\n")
    assert as_verifier("--config", str(config)) == (True, 128)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--speculative-config", DRAFTS % "synthetic"], "'synthetic'"),
        (["--speculative-config.rejection_sample_method", "fly"], "'fly'"),
        (["--logits-processors", "a.b:C"], "--logits-processors"),
    ],
)
def test_what_vllm_parses_is_refused(monkeypatch: pytest.MonkeyPatch, options: list[str], names: str) -> None:
    monkeypatch.delenv("VLLM_USE_RUST_FRONTEND", raising=False)
    with pytest.raises(UnsupportedEngine, match=names):
        refuse_unsupported(parsed_by_vllm(*options))


# The side channel's directory


def test_channel_directory() -> None:
    old = os.umask(0)
    try:
        with channel_directory() as first, channel_directory() as second:
            assert first != second
            assert stat.S_IMODE(Path(first).stat().st_mode) == 0o700
            assert Path(first).stat().st_uid == os.getuid()
            # A socket's address may have 107 bytes.
            assert len(f"{first}/engine-9999.sock") <= 107
            (Path(first) / "engine-0.sock").touch()
    finally:
        os.umask(old)
    assert not Path(first).exists()
    assert not Path(second).exists()


def test_channel_directory_does_not_outlive_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt), channel_directory() as directory:
        raise KeyboardInterrupt
    assert not Path(directory).exists()


def test_channel_directory_may_be_gone_already() -> None:
    with channel_directory() as directory:
        shutil.rmtree(directory)


# The console script


def toploc(*arguments: str, prelude: str = "", epilogue: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{prelude}\nimport sys\nfrom toploc.cli import main\nstatus = main()\n{epilogue}\nsys.exit(status)"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_imports_no_engine(arguments: list[str]) -> None:
    done = toploc(*arguments, epilogue=HEAVY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: toploc COMMAND")
    assert "serve" in done.stdout


HEAVY = "heavy = {'torch', 'vllm', 'numpy', 'numba', 'transformers'} & set(sys.modules)\nassert not heavy, heavy"


def test_version_is_ours_and_that_of_the_engine_and_the_format() -> None:
    import vllm

    done = toploc("--version", epilogue=HEAVY)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(maxsplit=1)[-1] for line in done.stdout.splitlines()] == [
        version("toploc-proxy"),
        vllm.__version__,
        "not installed",  # SGLang has an environment of its own
        "format  toploc-gf65497, version 1",
    ]


def test_version_without_an_engine() -> None:
    prelude = "import importlib.util as u\nfind = u.find_spec\nu.find_spec = lambda n: None if n == 'vllm' else find(n)"
    done = toploc("--version", prelude=prelude)
    assert "vLLM          not installed" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_serve_is_ours_and_imports_no_engine(flag: str) -> None:
    done = toploc("serve", "MODEL", flag, epilogue=HEAVY)
    assert (done.returncode, done.stderr) == (0, "")
    parser = ArgumentParser()
    add_options(parser)
    ours = {option for action in parser._actions for option in action.option_strings if option.startswith("--toploc")}
    assert len(ours) > 10
    assert all(option in done.stdout for option in ours)
    assert "toploc serve --help=all" in done.stdout


def test_unknown_subcommand() -> None:
    done = toploc("frobnicate", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("toploc: no subcommand 'frobnicate'")
    assert "usage: toploc" in done.stderr


def test_missing_extra_is_named() -> None:
    done = toploc("serve", prelude="import sys; sys.modules['pydantic'] = None")
    assert done.returncode == 2
    assert done.stderr == "toploc serve: pydantic is not installed; pip install 'toploc-proxy[proxy]'\n"
