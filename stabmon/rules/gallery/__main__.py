"""``python -m stabmon.rules.gallery``: draw every reference plot again from the stored runs."""

from stabmon.rules.gallery.draw import draw
from stabmon.rules.gallery.scenes import FOLDER, scenes


def main() -> None:
    """Write ``plots/CODE.svg`` for each scene."""
    folder = FOLDER / "plots"
    folder.mkdir(exist_ok=True)
    for code, scene in scenes().items():
        (folder / f"{code}.svg").write_text(draw(scene), encoding="utf-8")
    print(f"{len(scenes())} plots in {folder}")


if __name__ == "__main__":
    main()
