from __future__ import annotations

import pytest

from sage_obs.distro.supervisors import program, supervises, works

TRACKER = "from multiprocessing.resource_tracker import main;main(8)"
FORKSERVER = "from multiprocessing.forkserver import main; main(3, 5, [])"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python app.py --reload", "app.py"),
        ("python /venv/bin/uvicorn app:app", "uvicorn"),
        ("python -X dev -u -W error -m uvicorn app:app", "uvicorn"),
        ("python -mpytest -q", "pytest"),
        ("python", ""),
    ],
)
def test_the_program_of_a_python_process(line: str, expected: str) -> None:
    """Options of the interpreter and their values are not the program."""
    assert program(line.split()) == expected


@pytest.mark.parametrize(
    ("line", "environ", "expected"),
    [
        ("python /venv/bin/gunicorn app:app", {}, True),
        ("python -m granian app:app", {}, True),
        ("python -m uvicorn app:app", {}, False),
        ("python -m uvicorn app:app --workers 1", {}, False),
        ("python -m uvicorn app:app --workers=4", {}, True),
        ("python -m uvicorn app:app --workers four", {}, False),
        ("python -m uvicorn app:app --reload", {}, True),
        ("python -m uvicorn app:app", {"WEB_CONCURRENCY": "3"}, True),
        ("python -m hypercorn app:app -w 2", {}, True),
        ("python /venv/bin/hypercorn app:app", {}, True),
        ("python -m hypercorn app:app --workers=0", {}, False),
        ("python /venv/bin/fastapi dev app.py", {}, True),
        ("python /venv/bin/fastapi run app.py", {}, False),
        ("python -m flask run --debug", {}, True),
        ("python -m flask run --debug", {"WERKZEUG_RUN_MAIN": "true"}, False),
        ("python manage.py runserver", {}, True),
        ("python manage.py runserver", {"RUN_MAIN": "true"}, False),
        ("python app.py --workers 4 --reload", {}, False),
    ],
)
def test_supervisors_are_told_from_what_works_itself(line: str, environ: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a table
    """Servers with several workers, and whatever starts itself again when a file changes, leave the work to their children."""
    assert supervises(line.split(), environ) is expected


def test_the_helpers_of_multiprocessing_do_no_work() -> None:
    """The resource tracker is left alone, and the fork server's children are where the work is."""
    assert not works(["python", "-c", TRACKER])
    assert works(["python", "-c", FORKSERVER])
    assert supervises(["python", "-c", FORKSERVER], {})
