//! Charts as SVG: lines, bars, dots and matrices.
//!
//! Written here rather than with a plotting library because one file serves a light
//! and a dark page, a phone and a printer: colours are classes of a style sheet,
//! lines differ in dashes as well as in colour, text is text, and every chart
//! carries its description.

use std::fmt::Write;

/// Size of a chart in its own units, which are pixels where there is room.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
/// Room around the area of a line chart.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Letters of a bar's label.
const MOST_LETTERS: usize = 22;
/// Height of a row of bars or dots.
const ROW: f64 = 26.0;

/// Whose figures a mark shows; its name is its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The real trace.
    Real,
    /// The synthetic trace.
    Synthetic,
    /// A half of the real trace.
    Floor,
    /// The Markov baseline.
    Markov,
}

impl Side {
    fn class(self) -> &'static str {
        match self {
            Side::Real => "real",
            Side::Synthetic => "syn",
            Side::Floor => "floor",
            Side::Markov => "markov",
        }
    }

    /// As a legend calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Side::Real => "real",
            Side::Synthetic => "synthetic",
            Side::Floor => "half of real",
            Side::Markov => "Markov",
        }
    }
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it shows, with its unit.
    pub(super) label: String,
    /// Whether equal ratios are equally far apart.
    pub(super) log: bool,
}

impl Axis {
    pub(super) fn new(label: impl Into<String>, log: bool) -> Axis {
        Axis { label: label.into(), log }
    }
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) side: Side,
    /// Its name in the legend.
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Text that is safe in XML and HTML: markup is escaped, what neither may hold is
/// left out.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number as an axis says it.
pub(super) fn tick(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        0.0 => return "0".to_owned(),
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        1e-3.. => (value, ""),
        _ => return format!("{value:.0e}"),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{suffix}")
}

/// A range and where its ticks are.
#[derive(Clone, Debug)]
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone, log: bool) -> Scale {
        let usable = values.filter(|x| x.is_finite() && (!log || *x > 0.0));
        let low = usable.clone().fold(f64::INFINITY, f64::min);
        let high = usable.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Scale { log: false, low: 0.0, high: 1.0, ticks: vec![0.0, 1.0] };
        }
        if log {
            let (from, mut to) = (low.log10().floor(), high.log10().ceil());
            if to <= from {
                to = from + 1.0;
            }
            // About six labels, whatever the number of decades.
            let step = ((to - from) / 6.0).ceil().max(1.0);
            let count = ((to - from) / step) as i32;
            let ticks = (0..=count).map(|n| 10_f64.powf(from + f64::from(n) * step)).collect();
            return Scale { log, low: 10_f64.powf(from), high: 10_f64.powf(to), ticks };
        }
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        let rough = (high - low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough);
        let step = factor.unwrap_or(10.0) * power;
        let (from, to) = ((low / step).floor(), (high / step).ceil());
        let ticks = (0..=((to - from) as i32).min(20)).map(|n| (from + f64::from(n)) * step);
        Scale { log, low: from * step, high: to * step, ticks: ticks.collect() }
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// Opens a chart with its title and description.
fn open(out: &mut String, width: f64, height: f64, title: &str, description: &str) {
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\"><title>{}</title><desc>{}</desc>",
        escape(title),
        escape(description)
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    let _ = write!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        escape(text)
    );
}

fn rule(out: &mut String, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = write!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// A legend in one line from `x` on.
fn legend<'n>(out: &mut String, mut x: f64, entries: impl Iterator<Item = (Side, &'n str)>) {
    for (side, name) in entries {
        rule(out, &format!("line {}", side.class()), [x, 16.0, x + 24.0, 16.0]);
        text(out, x + 30.0, 20.0, "start", "label", name);
        x += 46.0 + 7.0 * name.chars().count() as f64;
    }
}

/// Lines over two axes.
pub(super) fn lines(title: &str, description: &str, x: &Axis, y: &Axis, all: &[Line]) -> String {
    let points = || all.iter().flat_map(|line| line.points.iter());
    let (horizontal, vertical) = (
        Scale::of(points().map(|point| point.0), x.log),
        Scale::of(points().map(|point| point.1), y.log),
    );
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let at_x = |value: f64| LEFT + horizontal.place(value) * (right - LEFT);
    let at_y = |value: f64| bottom - vertical.place(value) * (bottom - TOP);
    let mut out = String::new();
    open(&mut out, WIDTH, HEIGHT, title, description);
    for &value in &horizontal.ticks {
        rule(&mut out, "grid", [at_x(value), TOP, at_x(value), bottom]);
        text(&mut out, at_x(value), bottom + 16.0, "middle", "tick", &tick(value));
    }
    for &value in &vertical.ticks {
        rule(&mut out, "grid", [LEFT, at_y(value), right, at_y(value)]);
        text(&mut out, LEFT - 6.0, at_y(value) + 4.0, "end", "tick", &tick(value));
    }
    rule(&mut out, "axis", [LEFT, bottom, right, bottom]);
    rule(&mut out, "axis", [LEFT, TOP, LEFT, bottom]);
    text(&mut out, (LEFT + right) / 2.0, HEIGHT - 10.0, "middle", "label", &x.label);
    let middle = (TOP + bottom) / 2.0;
    let _ = write!(
        out,
        "<text transform=\"translate(13 {middle:.1}) rotate(-90)\" text-anchor=\"middle\" \
         class=\"label\">{}</text>",
        escape(&y.label)
    );
    for line in all {
        let _ = write!(out, "<polyline class=\"line {}\" points=\"", line.side.class());
        for &(x, y) in &line.points {
            if x.is_finite() && y.is_finite() && !(vertical.log && y <= 0.0) {
                let _ = write!(out, "{:.1},{:.1} ", at_x(x), at_y(y));
            }
        }
        out.push_str("\"/>");
    }
    legend(&mut out, LEFT, all.iter().map(|line| (line.side, line.name.as_str())));
    out + "</svg>"
}

/// A row of a bar chart: a label, and a value a side.
#[derive(Clone, Debug)]
pub(super) struct BarRow {
    pub(super) label: String,
    pub(super) values: Vec<f64>,
    /// How far the first value varies between halves.
    pub(super) spread: f64,
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most - 1).collect::<String>() + "…",
        None => text.to_owned(),
    }
}

/// Bars from left to right, a group a row; the axis begins at 0.
pub(super) fn bars(
    title: &str,
    description: &str,
    axis: &str,
    sides: &[Side],
    rows: &[BarRow],
) -> String {
    // Shares end at 1, whatever their halves differ by.
    let held = |value: f64, spread: f64| match value {
        ..=1.0 => (value + spread).min(1.0),
        _ => value + spread,
    };
    let most = rows.iter().flat_map(|row| row.values.iter().map(|&v| held(v, row.spread)));
    let scale = Scale::of(most.chain([0.0]).collect::<Vec<_>>().into_iter(), false);
    let characters =
        rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0).min(MOST_LETTERS);
    let left = 14.0 + 7.4 * characters as f64;
    let row_height = ROW.max(9.0 * sides.len() as f64 + 6.0);
    let bottom = TOP + row_height * rows.len() as f64;
    let (right, height) = (WIDTH - RIGHT - 6.0, bottom + 44.0);
    let at = |value: f64| left + scale.place(value) * (right - left);
    let mut out = String::new();
    open(&mut out, WIDTH, height, title, description);
    for &value in &scale.ticks {
        rule(&mut out, "grid", [at(value), TOP, at(value), bottom]);
        text(&mut out, at(value), bottom + 16.0, "middle", "tick", &tick(value));
    }
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + row_height * number as f64;
        text(
            &mut out,
            left - 6.0,
            top + row_height / 2.0 + 4.0,
            "end",
            "label",
            &shortened(&row.label, MOST_LETTERS),
        );
        let thick = (row_height - 6.0) / sides.len() as f64;
        let values = sides.iter().zip(&row.values).enumerate();
        for (place, (side, value)) in values.filter(|(_, (_, value))| value.is_finite()) {
            let _ = write!(
                out,
                "<rect class=\"bar {}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\"><title>{}: {} {}</title></rect>",
                side.class(),
                top + 3.0 + thick * place as f64,
                (at(*value) - left).max(0.5),
                thick - 1.0,
                escape(&row.label),
                side.name(),
                tick(*value)
            );
        }
        if let (Some(value), true) = (row.values.first(), row.spread > 0.0) {
            let y = top + 3.0 + (thick - 1.0) / 2.0;
            let (from, to) = (at(value - row.spread), at(value + row.spread));
            rule(&mut out, "whisker", [from, y, to, y]);
            rule(&mut out, "whisker", [from, y - 3.0, from, y + 3.0]);
            rule(&mut out, "whisker", [to, y - 3.0, to, y + 3.0]);
        }
    }
    rule(&mut out, "axis", [left, TOP, left, bottom]);
    text(&mut out, (left + right) / 2.0, height - 8.0, "middle", "label", axis);
    let mut x = left;
    for side in sides {
        let class = side.class();
        let _ = write!(
            out,
            "<rect class=\"bar {class}\" x=\"{x:.1}\" y=\"10\" width=\"18\" height=\"11\"/>"
        );
        text(&mut out, x + 24.0, 20.0, "start", "label", side.name());
        x += 40.0 + 7.0 * side.name().chars().count() as f64;
    }
    if rows.iter().any(|row| row.spread > 0.0) {
        rule(&mut out, "whisker", [x, 15.5, x + 18.0, 15.5]);
        text(&mut out, x + 24.0, 20.0, "start", "label", "halves");
    }
    out + "</svg>"
}

/// A row of ratios: a label, R and, if it is known, the baseline's R.
#[derive(Clone, Debug)]
pub(super) struct RatioRow {
    pub(super) label: String,
    pub(super) r: f64,
    pub(super) interval: [f64; 2],
    pub(super) baseline: Option<f64>,
}

/// Ratios on a logarithmic axis, with a line at 1.
pub(super) fn ratios(title: &str, description: &str, rows: &[RatioRow]) -> String {
    const MOST: f64 = 1000.0;
    let held = |r: f64| r.clamp(0.1, MOST);
    let all = rows
        .iter()
        .flat_map(|row| [Some(row.r), row.baseline, Some(row.interval[0]), Some(row.interval[1])]);
    let all: Vec<f64> = all.flatten().map(held).chain([0.5, 2.0]).collect();
    let scale = Scale::of(all.into_iter(), true);
    let (left, right) = (218.0, WIDTH - RIGHT - 6.0);
    let row_height = 19.0;
    let bottom = TOP + row_height * rows.len() as f64;
    let height = bottom + 44.0;
    let at = |r: f64| left + scale.place(held(r)) * (right - left);
    let mut out = String::new();
    open(&mut out, WIDTH, height, title, description);
    for &value in &scale.ticks {
        rule(&mut out, "grid", [at(value), TOP, at(value), bottom]);
        text(&mut out, at(value), bottom + 16.0, "middle", "tick", &tick(value));
    }
    rule(&mut out, "one", [at(1.0), TOP, at(1.0), bottom]);
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + row_height * (number as f64 + 0.5);
        text(&mut out, left - 8.0, y + 4.0, "end", "tick", &shortened(&row.label, 34));
        if let Some(baseline) = row.baseline {
            let x = at(baseline);
            let _ = write!(
                out,
                "<path class=\"dot markov\" d=\"M{:.1} {:.1}l5 5l-5 5l-5 -5z\"><title>{}: Markov {}</title></path>",
                x,
                y - 5.0,
                escape(&row.label),
                tick(baseline)
            );
        }
        rule(&mut out, "range", [at(row.interval[0]), y, at(row.interval[1]), y]);
        let _ = write!(
            out,
            "<circle class=\"dot syn\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{}: R {}</title></circle>",
            at(row.r),
            escape(&row.label),
            tick(row.r)
        );
    }
    text(
        &mut out,
        (left + right) / 2.0,
        height - 8.0,
        "middle",
        "label",
        "R = distance / noise floor (ratio)",
    );
    let _ = write!(out, "<circle class=\"dot syn\" cx=\"{:.1}\" cy=\"16\" r=\"4.5\"/>", left + 6.0);
    text(&mut out, left + 16.0, 20.0, "start", "label", "model");
    if rows.iter().any(|row| row.baseline.is_some()) {
        let _ = write!(
            out,
            "<path class=\"dot markov\" d=\"M{:.1} 11l5 5l-5 5l-5 -5z\"/>",
            left + 76.0
        );
        text(&mut out, left + 86.0, 20.0, "start", "label", "Markov");
    }
    out + "</svg>"
}

/// A square matrix of numbers from -1 to 1.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) name: &'static str,
    pub(super) rows: Vec<Vec<f64>>,
}

/// Matrices below one another, each cell with its number and a colour for it.
pub(super) fn matrices(title: &str, description: &str, names: &[String], all: &[Matrix]) -> String {
    let left = 16.0
        + 6.8 * names.iter().map(|name| name.chars().count().min(16)).max().unwrap_or(0) as f64;
    let count = names.len().max(1) as f64;
    let cell = ((WIDTH - left - RIGHT) / count).min(64.0);
    let tall = cell.min(30.0);
    let block = 26.0 + tall * count + 26.0;
    let height = 8.0 + block * all.len() as f64;
    let mut out = String::new();
    open(&mut out, WIDTH, height, title, description);
    for (number, matrix) in all.iter().enumerate() {
        let top = 8.0 + block * number as f64;
        text(&mut out, left, top + 14.0, "start", "label strong", matrix.name);
        let top = top + 22.0;
        for (i, row) in matrix.rows.iter().enumerate() {
            let y = top + tall * i as f64;
            let name = names.get(i).map_or("", String::as_str);
            text(&mut out, left - 6.0, y + tall / 2.0 + 4.0, "end", "tick", &shortened(name, 16));
            for (j, value) in row.iter().enumerate() {
                let x = left + cell * j as f64;
                let (class, opacity) =
                    (if *value < 0.0 { "minus" } else { "plus" }, value.abs().min(1.0));
                let _ = write!(
                    out,
                    "<rect class=\"cell {class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
                     height=\"{:.1}\" fill-opacity=\"{:.2}\"/>",
                    cell - 1.0,
                    tall - 1.0,
                    0.75 * opacity
                );
                let shown = format!("{value:.2}").replace("-0.00", "0.00");
                text(
                    &mut out,
                    x + cell / 2.0,
                    y + tall / 2.0 + 4.0,
                    "middle",
                    "tick strong",
                    &shown,
                );
            }
        }
        let y = top + tall * count + 14.0;
        for (j, name) in names.iter().enumerate() {
            let most = (cell / 6.5) as usize;
            let x = left + cell * (j as f64 + 0.5);
            text(&mut out, x, y, "middle", "tick", &shortened(name, most.max(2)));
        }
    }
    out + "</svg>"
}

/// A chart as a file of its own: with the colours that the page would give it.
pub(super) fn standalone(chart: &str) -> String {
    let style = format!("<style>{}</style>", super::CHART_STYLE);
    match chart.split_once("</desc>") {
        Some((head, rest)) => format!("{head}</desc>{style}{rest}\n"),
        None => chart.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_labels_is_text() {
        assert_eq!(escape("<b>&\"'\u{1}\n"), "&lt;b&gt;&amp;&quot;&#39;\u{fffd} ");
        let row = BarRow { label: "</svg><script>".to_owned(), values: vec![1.0], spread: 0.0 };
        let chart = bars("<i>", "d", "share", &[Side::Real], &[row]);
        assert!(!chart.contains("<script") && !chart.contains("<i>"), "{chart}");
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let scale = Scale::of([3.0, 97.0].into_iter(), false);
        assert_eq!(scale.ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let scale = Scale::of([2e-4, 50.0].into_iter(), true);
        let decades: Vec<i32> = scale.ticks.iter().map(|x| x.log10().round() as i32).collect();
        assert_eq!(decades, [-4, -3, -2, -1, 0, 1, 2]);
        assert_eq!([0.0, 1500.0, 2e6, 2e-5].map(tick), ["0", "1500", "2M", "2e-5"]);
    }

    #[test]
    fn nothing_and_what_is_not_finite_still_make_a_chart() {
        let line = Line { side: Side::Real, name: "x".to_owned(), points: vec![(f64::NAN, 1.0)] };
        let (x, y) = (Axis::new("x (s)", true), Axis::new("y", true));
        let chart = lines("t", "d", &x, &y, &[line]);
        assert!(chart.ends_with("</svg>") && !chart.contains("NaN"), "{chart}");
        assert!(bars("t", "d", "x", &[], &[]).ends_with("</svg>"));
        assert!(matrices("t", "d", &[], &[]).ends_with("</svg>"));
        assert!(ratios("t", "d", &[]).ends_with("</svg>"));
    }
}
