"""How Sphinx makes the site; `labkit.workbook.pages` runs it."""

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
