"""A page as a real browser shows it."""

import re
import shutil
import subprocess

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=4000", "--dump-dom"]


def shown(page, folder):
    """The elements of a file once its script has run, as text; the browser keeps its own files in the folder."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'browser'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def found(text, script, folder):
    """What a script, put at the end of a page's text to act as a user would, leaves in the element `found`, and all errors."""
    hook = f"<script>addEventListener('error', e => found.textContent += 'ERROR ' + e.message);{script}</script>"
    page = folder / "page.html"
    page.write_text(text.replace("</body>", f'<p id="found"></p>{hook}</body>'))
    return re.search(r'<p id="found">(.*?)</p>', shown(page, folder), re.S)[1]
