//! The tables' drawn columns as horizontal bars (SVG 1.1): the median, and a line from the lowest to the highest value.

use super::{Table, median, number};

const WIDTH: usize = 920;
const LABELS: usize = 330;
const BARS: usize = 460;
const LINE: usize = 22;
const MARGIN: usize = 16;
/// Ours, and all others.
const COLOURS: [&str; 2] = ["#2f6f9f", "#b9c2c9"];

pub(super) fn draw(tables: &[Table]) -> String {
    let (mut y, mut body) = (MARGIN, String::new());
    for (table, column) in tables.iter().flat_map(|table| table.drawn.iter().map(move |column| (table, *column))) {
        y = panel(table, column, y, &mut body);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// One column of a table from `y` on; tells where the next one begins.
fn panel(table: &Table, column: &str, mut y: usize, body: &mut String) -> usize {
    let values = |row: &super::Row| table.values(&row.name, column).to_vec();
    let highest = table.rows.iter().flat_map(values).fold(f64::MIN_POSITIVE, f64::max);
    // A difference may be below zero: its bar has no length.
    let length = |value: f64| (value.max(0.0) / highest * BARS as f64).round();
    y += LINE;
    body.push_str(&format!(
        "<text x=\"{MARGIN}\" y=\"{y}\" font-weight=\"bold\">{}</text>\n",
        escape(&format!("{}: {column}", table.title))
    ));
    for row in &table.rows {
        let values = values(row);
        let Some(median) = median(&values) else { continue };
        y += LINE;
        let [low, high] = [f64::min, f64::max].map(|pick| values.iter().copied().reduce(pick).map_or(0.0, length) + LABELS as f64);
        let (top, middle) = (y - 13, y - 5);
        let colour = COLOURS[usize::from(!row.name.starts_with("ringfence"))];
        let (label, text) = (LABELS - 8, escape(&row.name));
        body.push_str(&format!("<text x=\"{label}\" y=\"{y}\" text-anchor=\"end\">{text}</text>\n"));
        body.push_str(&format!("<rect x=\"{LABELS}\" y=\"{top}\" width=\"{}\" height=\"16\" fill=\"{colour}\"/>\n", length(median)));
        body.push_str(&format!("<path d=\"M{low} {middle}H{high}\" stroke=\"#333\"/>\n"));
        body.push_str(&format!("<text x=\"{}\" y=\"{y}\">{}</text>\n", high + 6.0, number(median)));
    }
    y + LINE
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_median() {
        let mut table = Table::new("a & b", &["us", "not drawn"]).drawn(&["us"]);
        [100.0, 50.0, 20.0].iter().for_each(|value| table.add("peer", &[*value, 1.0]));
        table.add("ringfence", &[25.0, 1.0]);
        let svg = draw(&[table]);
        for part in
            ["a &amp; b: us", "width=\"230\" height=\"16\" fill=\"#b9c2c9\"", "width=\"115\" height=\"16\" fill=\"#2f6f9f\"", "M422 73H790"]
        {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("not drawn"));
    }
}
