"""The words of other languages than the sources' English: zh.json, and how a text is found in it.

`texts` has the sources' own templates, `others` those of libraries and of texts that are put together; `{}` stands
where a value does, `{0}`, `{1}` where their order is another, `{=}` where it stays as it is. The page reads the same
table: wan_ui/ui/words.js.
"""
