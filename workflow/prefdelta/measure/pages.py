"""A page that shows texts of models: nothing in them is run, and nothing in them is hidden."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment

from prefdelta.run.atomic import write_text
from prefdelta.tables.cells import visible


def write_page(template: str, page: Path, **values: Any) -> None:
    """Renders ``template`` (Jinja; HTML with ``{{ policy }}`` at the start of its head) with ``values``, which are escaped.

    The page's content security policy lets nothing through but the template's own <style> and <script>, by their hashes, and
    images that the page itself holds. Handlers in attributes are no part of that.
    """
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    text = environment.from_string(template.replace("{{ policy }}", _policy(template))).render(values)
    write_text(text, page)


def _policy(template: str) -> str:
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    for kind in ("style", "script"):
        own = [hashlib.sha256(code.encode()).digest() for code in re.findall(rf"<{kind}>(.*?)</{kind}>", template, re.DOTALL)]
        rules += [" ".join([f"{kind}-src", *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in own)])] if own else []
    return f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">'


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value
