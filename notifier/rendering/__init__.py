"""Templates: from an event and a recipient to the blocks that a channel sends.

A template is `<event type>/<channel>.jinja`, or `<channel>.<locale>.jinja` for a language. It
has one `{% block … %}` for each block of its channel:

    email   subject, body (HTML), text (made from body when it is left out)
    push    title, body, url (may be left out)
    in_app  title, body, url (may be left out)

HTML is escaped, text is not. What stands around the blocks (`set`, `import`, `macro`) is part of
each of them. Files that begin with `_`, and those in `layouts/`, are for `import` and `include`.
The HTML block `body` is put into `layouts/<channel>.html.jinja`, or `<channel>.<locale>.html.jinja`,
at `{{ body }}`; a layout also sees the other blocks, and what the body has `set` at its top
level. CSS of a layout is written into the tags when it is loaded (see `rendering.styles`).

Variables
    event      id, type, occurred_at, data, actor
    data       what the producer sent; a name that is missing is an error
    actor      who did it, or none: id, name, image, url
    recipient  id, name, locale, time_zone
    count      how many events this stands for; actors, items: theirs
    locale     the language and region in which numbers and dates are written
    channel    email, push, …

Filters, beside those of Jinja
    129.5 | money("EUR")          €129.50; money("EUR", times=3) for three of them
    12345.6 | number              12,345.6
    time | date, time | datetime  in the recipient's zone; date("full"), "long", "medium", "short"
    272 | duration                4:32
    url | safe_url                itself if it is http or https; nothing if it is not, or missing
    actor | name("Someone")       the name, or the fallback when there is none
"""

from notifier.rendering.check import Problem, check, sample_of
from notifier.rendering.folder import DEFAULT_LOCALE, TemplateFolder

__all__ = ["DEFAULT_LOCALE", "Problem", "TemplateFolder", "check", "sample_of"]
