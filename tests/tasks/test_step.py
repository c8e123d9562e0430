"""Outside a flow run, a step is a plain function."""

from __future__ import annotations

import subprocess
import sys

from tasks.step import step


@step("add-two")
def add(left: int, right: int = 2) -> int:
    """Add."""
    return left + right


def test_without_a_flow_it_is_the_function() -> None:
    assert add(1) == 3
    assert add.named("any {name}")(1, right=4) == 5
    assert add.__doc__ == "Add."


def test_no_step_needs_prefect() -> None:
    code = "import sys, tasks.resampling, tasks.scoring; assert 'prefect' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
