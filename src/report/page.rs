//! A report as one HTML page without scripts and without external resources except its pictures.

use std::fmt::Write;

/// A section of the page.
#[derive(Debug, Clone)]
pub enum Section {
    /// A table with a head row.
    Table {
        /// Heading.
        title: String,
        /// Names of the columns.
        head: Vec<String>,
        /// The rows.
        rows: Vec<Vec<String>>,
    },
    /// A table whose rows lead to other pages.
    Links {
        /// Heading.
        title: String,
        /// Names of the columns.
        head: Vec<String>,
        /// The rows; where there is a path, relative to the page, the first cell leads to it.
        rows: Vec<(Option<String>, Vec<String>)>,
    },
    /// Fractions of 1 as bars, with one bar marked.
    Bars {
        /// Heading.
        title: String,
        /// The bars, each a name and a fraction.
        bars: Vec<(String, f32)>,
        /// The index of the bar that is marked.
        chosen: usize,
    },
    /// Pictures, by paths relative to the page.
    Pictures {
        /// Heading.
        title: String,
        /// The pictures, each a path and a caption.
        pictures: Vec<(String, String)>,
        /// Whether each picture is on a line of its own, as wide as the page.
        wide: bool,
    },
}

/// A report page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Heading.
    pub title: String,
    /// Notes at the top of the page that a reader must know, such as warnings.
    pub notes: Vec<String>,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}table{border-collapse:collapse}\
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #ddd}td{font-variant-numeric:tabular-nums}\
.note{background:#fff4d6;border-left:4px solid #e0a800;padding:.5rem 1rem;margin:.5rem 0}\
.bar{background:#9db4c8;height:1rem;display:inline-block;vertical-align:middle;margin-right:.5rem}.chosen{background:#c0392b}\
figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}img{max-width:28rem;width:100%;display:block}figure.wide{display:block}.wide img{max-width:100%}\
figcaption{font-size:.9rem;color:#555}";

/// The length of a bar for the fraction 1, in CSS pixels.
const BAR: f32 = 320.0;

impl Page {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head>\n<body>\n<h1>{0}</h1>\n",
            escape(&self.title)
        );
        for note in &self.notes {
            push(&mut out, format_args!("<p class=\"note\">{}</p>\n", escape(note)));
        }
        for section in &self.sections {
            section.html(&mut out);
        }
        out.push_str("</body></html>\n");
        out
    }
}

impl Section {
    fn html(&self, out: &mut String) {
        match self {
            Self::Table { title, head, rows } => {
                push(out, format_args!("<h2>{}</h2>\n<table>", escape(title)));
                row(out, "th", head);
                rows.iter().for_each(|r| row(out, "td", r));
                out.push_str("</table>\n");
            }
            Self::Links { title, head, rows } => {
                push(out, format_args!("<h2>{}</h2>\n<table>", escape(title)));
                row(out, "th", head);
                for (target, cells) in rows {
                    out.push_str("<tr>");
                    for (i, cell) in cells.iter().enumerate() {
                        match target.as_ref().filter(|_| i == 0) {
                            Some(target) => {
                                let target = escape(&encoded(target));
                                push(out, format_args!("<td><a href=\"{target}\">{}</a></td>", escape(cell)));
                            }
                            None => push(out, format_args!("<td>{}</td>", escape(cell))),
                        }
                    }
                    out.push_str("</tr>\n");
                }
                out.push_str("</table>\n");
            }
            Self::Bars { title, bars, chosen } => {
                push(out, format_args!("<h2>{}</h2>\n<table>", escape(title)));
                for (i, (name, share)) in bars.iter().enumerate() {
                    let class = if i == *chosen { "bar chosen" } else { "bar" };
                    let width = (share.clamp(0.0, 1.0) * BAR).round();
                    push(
                        out,
                        format_args!(
                            "<tr><td>{}</td><td><span class=\"{class}\" style=\"width:{width}px\"></span>{share:.3}</td></tr>",
                            escape(name)
                        ),
                    );
                }
                out.push_str("</table>\n");
            }
            Self::Pictures { title, pictures, wide } => {
                let class = if *wide { " class=\"wide\"" } else { "" };
                push(out, format_args!("<h2>{}</h2>\n", escape(title)));
                for (path, caption) in pictures {
                    push(
                        out,
                        format_args!(
                            "<figure{class}><img src=\"{0}\" alt=\"{1}\"><figcaption>{1}</figcaption></figure>\n",
                            escape(path),
                            escape(caption)
                        ),
                    );
                }
            }
        }
    }
}

fn row(out: &mut String, tag: &str, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        push(out, format_args!("<{tag}>{}</{tag}>", escape(cell)));
    }
    out.push_str("</tr>\n");
}

/// Appends formatted text; writing to a `String` cannot fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// A path as a relative reference: what has a meaning of its own in an address is given by its code.
fn encoded(path: &str) -> String {
    let mut out = String::from("./");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => out.push(byte.into()),
            _ => push(&mut out, format_args!("%{byte:02X}")),
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let page = Page { title: "a<b & \"c\"".into(), notes: vec!["<script>".into()], sections: vec![] };
        let html = page.html();
        assert!(html.contains("a&lt;b &amp; &quot;c&quot;") && !html.contains("<script>"), "{html}");
        let row = (Some("javascript:a\"b #1/r.html".into()), vec!["<i>".into(), "2".into()]);
        let links = Section::Links { title: String::new(), head: vec![], rows: vec![row] };
        let html = Page { sections: vec![links], ..Page::default() }.html();
        assert!(html.contains("href=\"./javascript%3Aa%22b%20%231/r.html\">&lt;i&gt;</a></td><td>2</td>"), "{html}");
    }
}
