"""What is imported without torch's compiler works as it does with it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap

import pytest

from featcache.lean import collector_paused, let_waiting_threads_sleep

POLICY = "OMP_WAIT_POLICY"


def test_a_network_comes_without_the_compiler_which_works_once_it_is_asked_for() -> None:
    _run("""
        import sys

        import featcache.images.augmentation
        from featcache.backbones.registry import load_backbone

        load_backbone()
        assert "torch._dynamo" not in sys.modules, "the compiler was imported"

        import timm.layers, torch, torchvision.ops.roi_align
        deferred = sys.modules["torchvision.ops.roi_align"].is_compile_supported
        supported = {device: deferred(device) for device in ("cpu", "mps")}
        assert "torch._dynamo" in sys.modules
        from torch._dynamo.utils import is_compile_supported
        assert is_compile_supported is not deferred
        assert supported == {device: is_compile_supported(device) for device in supported}
        assert torch.compiler.disable.__module__ == "torch.compiler"

        def seen(x):  # what a compiler that looks into it makes of it
            return x + 1 if torch.compiler.is_compiling() else x - 1

        for disabled in (
            timm.layers.disable_compiler(seen),
            timm.layers.disable_compiler(recursive=False)(seen),
            torch.compiler.disable(seen),
        ):
            assert disabled.__name__ == "seen"
            compiled = torch.compile(lambda x: disabled(x) * 2, backend="eager")
            assert compiled(torch.full((1,), 4.0)).item() == 6
        assert torch.compile(lambda x: seen(x) * 2, backend="eager")(torch.ones(1)).item() == 4
    """)


def test_the_compiler_can_be_imported_within() -> None:
    _run("""
        from featcache.lean import compiler_deferred

        with compiler_deferred():
            from torch._dynamo.utils import is_compile_supported as deferred
            import torch._dynamo.convert_frame
            from torch._dynamo.utils import counters, is_compile_supported
            with compiler_deferred():
                import torch._dynamo.utils
        assert torch._dynamo.utils.counters is counters
        assert deferred is not is_compile_supported
        assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
    """)


def test_nothing_looks_for_garbage_while_commands_are_imported() -> None:
    for first in ("import featcache as fc; fc.extract", "from featcache import api; api.extract"):
        _run(f"""
            import gc, sys

            phases = []
            gc.callbacks.append(lambda phase, info: phases.append(phase))
            {first}
            assert "timm" in sys.modules
            runs = phases.count("start")  # some 600 where nothing is paused
            assert runs < 100, runs
        """)


def test_a_process_of_its_own_never_looks_through_what_it_imported() -> None:
    command_line = """
        from featcache_cli.app import main
        try:
            main()
        except SystemExit:
            pass
    """
    for before, kept in (("", False), (textwrap.dedent(command_line), True)):
        _run(f"""
import gc, sys
sys.argv = ["featcache", "--version"]
{before}
import featcache as fc
fc.extract
assert (gc.get_freeze_count() > 100_000) == {kept}, gc.get_freeze_count()
assert gc.isenabled()
""")


@pytest.mark.parametrize(
    ("cores", "own", "policy"),
    [(2, {}, "passive"), (2, {POLICY: "active"}, "active"), (64, {}, None)],
)
def test_waiting_threads_sleep_where_cores_are_few_and_nobody_chose(
    cores: int, own: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "environ", dict(own))
    let_waiting_threads_sleep()
    assert os.environ.get(POLICY) == policy


def test_they_are_told_so_before_torch_is_there() -> None:
    _run("""
        import os, sys
        os.cpu_count = lambda: 2
        os.environ.pop("OMP_WAIT_POLICY", None)
        from featcache_cli.app import main
        assert "torch" not in sys.modules
        sys.argv = ["featcache", "--version"]
        try:
            main()
        except SystemExit:
            pass
        assert os.environ["OMP_WAIT_POLICY"] == "passive"
    """)


def test_the_collector_is_as_it_was() -> None:
    was = gc.isenabled()
    try:
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            with collector_paused():
                assert not gc.isenabled()
            assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()


def _run(code: str) -> None:
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
