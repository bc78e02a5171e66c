"""``python -m stabmon.rules.gallery``: draw every reference plot again from the stored runs."""

from stabmon.rules.gallery.draw import draw
from stabmon.rules.gallery.stored_runs import FOLDER, reference_runs


def main() -> None:
    """Write ``plots/CODE.svg`` for each rule."""
    folder = FOLDER / "plots"
    folder.mkdir(exist_ok=True)
    for code, runs in reference_runs().items():
        (folder / f"{code}.svg").write_text(draw(runs), encoding="utf-8")
    print(f"{len(reference_runs())} plots in {folder}")


if __name__ == "__main__":
    main()
