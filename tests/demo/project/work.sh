# What the session does: run the tests, read the untracked file, greet in German, commit.
set -e
python3 -m unittest -q test_greet 2>&1 | tail -n 1
echo "the notes say: $(cat notes.txt)"
python3 - <<'PYTHON'
import pathlib
file = pathlib.Path("greet.py")
file.write_text(file.read_text().replace('"eo": "Saluton"', '"eo": "Saluton", "de": "Hallo"'))
PYTHON
git commit -qam "Greet in German"
echo "committed"
