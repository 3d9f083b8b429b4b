"""Read and write the fixtures that are containerd's configurations."""

from __future__ import annotations

from pathlib import Path

CONTAINERD = Path(__file__).resolve().parent.parent / "fixtures" / "containerd"


def read(path: Path) -> str:
    """Return a fixture's text. ``*-crlf*`` are files of Windows: kept with plain line ends, since ansible-test refuses others, and read with CR LF."""
    text = path.read_bytes().decode()
    return text.replace("\n", "\r\n") if "-crlf" in path.name else text


def write(path: Path, text: str) -> None:
    """Keep ``text`` so that ``read`` gives it back."""
    path.write_bytes((text.replace("\r\n", "\n") if "-crlf" in path.name else text).encode())


def inputs() -> dict[str, str]:
    """Return the configurations that tests start from, by name."""
    return {path.stem: read(path) for path in sorted((CONTAINERD / "input").glob("*.toml"))}
