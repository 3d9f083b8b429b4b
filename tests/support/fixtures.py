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


def cases() -> list[str]:
    """Return the names of the configurations that people published, and of those that showed a fault."""
    return [path.stem for path in sorted((CONTAINERD / "cases").glob("*.toml"))]


def lay_out_case(name: str, folder: Path) -> str:
    """Lay a case's imported files out in ``folder`` and return the main file's text; ``@DIR@`` is the folder, ``@MAIN@`` the main file."""
    source = CONTAINERD / "cases"

    def text_of(path: Path) -> str:
        return path.read_bytes().decode().replace("@DIR@", str(folder)).replace("@MAIN@", f"{folder}/config.toml")

    for path in sorted((source / f"{name}.files").rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(source / f"{name}.files")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text_of(path))
    return text_of(source / f"{name}.toml")
