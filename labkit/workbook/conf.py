"""How Sphinx makes the site, and the slides; `build` of `labkit.workbook.pages` runs it."""

project = html_title = "The asyncpg stall workbook"
extensions = ["myst_nb", "sphinx_copybutton"]
html_theme = "furo"
html_static_path = html_css_files = ["pages.css"]
html_copy_source = html_show_copyright = html_show_sphinx = html_use_index = False
html_show_search_summary = False  # for which a page is fetched, and no browser does so from a disk
smartquotes = False  # which would make one long dash of --workers
nb_execution_mode = "off"
myst_enable_extensions: list[str] = []  # a $ begins no formula
myst_heading_anchors = 3
myst_heading_slug_func = "labkit.workbook.pages.anchor"
myst_url_schemes = {
    "http": None,
    "https": None,
    "checkout": "../notebooks/{{path}}#{{fragment}}",
    "earlier": "{{path}}.html#{{fragment}}",  # the page of an earlier run
}

revealjs_html_theme = "revealjs-simple"  # the other one forbids to zoom
revealjs_style_theme = "white"
revealjs_static_path = ["slides.css"]
revealjs_css_files = ["slides.css"]
# A browser without a window draws only one of the frames that reveal.js waits for before it prints.
_PRINT = 'if (location.search == "?print-pdf") requestAnimationFrame = go => setTimeout(go, 10)'
revealjs_js_files = [(None, {"body": _PRINT})]
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
revealjs_script_conf = {"width": 1280, "height": 720, "center": False, "hash": True} | {
    "slideNumber": "c/t",
    "transition": "none",
    "pdfMaxPagesPerSlide": 1,
}
