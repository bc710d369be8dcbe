//! Plots as SVG, by plotters: titled, dated, each run with its verdict unless it was clean.

use super::json::{RunRecord, date};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::full_palette;
use std::ops::Range;

const SIZE: (u32, u32) = (760, 420);
/// Told apart also by readers who do not see red and green.
const COLORS: [RGBColor; 8] = [
    full_palette::BLUE_700,
    full_palette::ORANGE_800,
    full_palette::TEAL_600,
    full_palette::PURPLE_500,
    full_palette::BROWN_500,
    full_palette::PINK_600,
    full_palette::BLUEGREY_600,
    full_palette::LIME_900,
];

/// A run and what to call it.
pub struct Labelled {
    pub label: String,
    pub record: RunRecord,
}

impl Labelled {
    /// The label; a run that is not clean says so wherever it is drawn.
    fn shown(&self) -> String {
        match self.record.words() {
            "clean" => self.label.clone(),
            other => format!("{} ({other})", self.label),
        }
    }
}

/// Height of the line below a plot.
const FOOTER: u32 = 20;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An axis with ticks of our own.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    is_logarithmic: bool,
}

impl Axis {
    fn even(high: f64, ticks: Vec<f64>) -> Self {
        Axis {
            range: 0.0..high,
            ticks,
            is_logarithmic: false,
        }
    }

    fn share(&self, value: f64) -> f64 {
        let Range { start, end } = self.range;
        if self.is_logarithmic {
            (value / start).ln() / (end / start).ln()
        } else {
            (value - start) / (end - start)
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        low + (self.share(*value) * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Points of one run.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
}

fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

fn draw(
    runs: &[Labelled],
    what: &str,
    paint: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let painted = framed(&area, runs, what).and_then(|plot| paint(&plot));
        let presented = painted.and_then(|()| area.present().map_err(Into::into));
        presented.map_err(|error| format!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

/// Title above, date and versions below; what is left is for the plot.
fn framed<'a>(
    area: &Area<'a>,
    runs: &[Labelled],
    what: &str,
) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let scenario = runs.first().map_or("", |run| run.record.scenario.as_str());
    let title = ("sans-serif", 18).into_font();
    let area = area.titled(&format!("{scenario}: {what}"), title)?;
    let (plot, footer) = area.split_vertically(area.dim_in_pixel().1 - FOOTER);
    let small = ("sans-serif", 11)
        .into_font()
        .color(&full_palette::GREY_700);
    footer.draw(&Text::new(origin(runs), (14, 2), small))?;
    Ok(plot)
}

/// When and with what the runs were made.
fn origin(runs: &[Labelled]) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut say = |text: String| {
        if !text.is_empty() && !said.contains(&text) {
            said.push(text);
        }
    };
    for Labelled { record, .. } in runs {
        say(date(record.ended_unix_s));
        say(
            format!("loadgen {} {}", record.loadgen, record.loadgen_commit)
                .trim()
                .to_owned(),
        );
        say(record.broker_version.clone().unwrap_or_default());
        say(record.host.cpu_model.clone());
    }
    said.join(", ")
}

/// Latency over percentile; the axis shows each further nine as a step.
pub fn percentiles(runs: &[Labelled], measure: &str) -> Result<Option<String>, String> {
    let lines: Vec<Line> = runs
        .iter()
        .filter_map(|run| {
            let latency = run.record.latency.get(measure)?;
            let points = latency.curve_ns.iter().map(|(quantile, ns)| {
                let nines = -(1.0 - quantile).max(1e-7).log10();
                (nines, (*ns).max(1) as f64 / 1e6)
            });
            Some(Line {
                label: run.shown(),
                points: points.filter(|(nines, _)| *nines < 6.5).collect(),
            })
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let (x_max, y) = (max(&lines, |p| p.0).max(1.0), range(&lines));
    let nines = [0.0, 0.5_f64.log10().abs(), 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let x_ticks = nines.into_iter().filter(|tick| *tick <= x_max).collect();
    let y_ticks = decade_ticks(&y);
    let x = Axis::even(x_max, x_ticks);
    let y = Axis {
        range: y,
        ticks: y_ticks,
        is_logarithmic: true,
    };
    draw(runs, &format!("{measure} latency by percentile"), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("latency in ms")
            .x_label_formatter(&|nines| percentile_label(*nines))
            .y_label_formatter(&|ms| number(*ms))
            .max_light_lines(1)
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let style = color(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    })
    .map(Some)
}

fn legend<'a, 'b: 'a, X: Ranged, Y: Ranged>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
) -> Result<(), Box<dyn std::error::Error>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(full_palette::GREY_400)
        .draw()
        .map_err(|error| error.to_string().into())
}

/// Deliveries per second over time.
pub fn throughput(runs: &[Labelled]) -> Result<Option<String>, String> {
    over_time(runs, "deliveries per second", |second| {
        second.delivered as f64
    })
}

/// The 99th percentile of each second over time, in ms.
pub fn latency_over_time(runs: &[Labelled]) -> Result<Option<String>, String> {
    over_time(runs, "p99 of each second in ms", |second| {
        second.p99_ns as f64 / 1e6
    })
}

fn over_time(
    runs: &[Labelled],
    what: &str,
    value: impl Fn(&super::json::SecondRecord) -> f64,
) -> Result<Option<String>, String> {
    let lines: Vec<Line> = runs
        .iter()
        .map(|run| {
            // The last second is seldom a whole one: drawn, it would look like a collapse.
            let whole = (run.record.elapsed_s + 0.02) as u64;
            let loaded = run.record.seconds.iter().filter(|s| s.delivered > 0);
            let first = loaded.clone().map(|s| s.second).min().unwrap_or(0);
            let loaded = loaded.filter(|s| s.second - first < whole);
            Line {
                label: run.shown(),
                points: loaded
                    .map(|s| ((s.second - first + 1) as f64, value(s)))
                    .collect(),
            }
        })
        .filter(|line| line.points.len() > 1)
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let (x_max, y_max) = (
        max(&lines, |p| p.0).max(1.0),
        max(&lines, |p| p.1).max(1e-3),
    );
    draw(runs, what, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(70)
            .build_cartesian_2d(
                Axis::even(x_max, even_ticks(x_max, true)),
                Axis::even(y_max * 1.15, even_ticks(y_max * 1.15, false)),
            )?;
        chart
            .configure_mesh()
            .x_desc("seconds of the load")
            .y_desc(what)
            .max_light_lines(1)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        for (index, line) in lines.iter().enumerate() {
            let style = color(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        legend(&mut chart)?;
        Ok(())
    })
    .map(Some)
}

/// One bar per run.
pub fn bars(
    runs: &[Labelled],
    what: &str,
    value: impl Fn(&RunRecord) -> Option<f64>,
) -> Result<Option<String>, String> {
    let bars: Vec<(String, f64)> = runs
        .iter()
        .filter_map(|run| Some((run.shown(), value(&run.record)?)))
        .collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let count = bars.len() as f64;
    let longest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(1e-9);
    draw(runs, what, |area| {
        let ticks = even_ticks(longest * 1.2, false);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(16)
            .build_cartesian_2d(Axis::even(longest * 1.2, ticks), 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(what)
            .max_light_lines(1)
            .x_label_formatter(&|value| number(*value))
            .draw()?;
        for (index, (label, value)) in bars.iter().enumerate() {
            let bottom = count - 1.0 - index as f64;
            let corners = [(0.0, bottom + 0.15), (*value, bottom + 0.55)];
            chart.draw_series([Rectangle::new(corners, color(index).filled())])?;
            let text = format!("{label}: {}", number(*value));
            let font = ("sans-serif", 15).into_font();
            chart.draw_series([Text::new(text, (longest * 0.01, bottom + 0.85), font)])?;
        }
        Ok(())
    })
    .map(Some)
}

fn max(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let points = lines.iter().flat_map(|line| line.points.iter());
    points.map(of).fold(0.0, f64::max)
}

fn range(lines: &[Line]) -> Range<f64> {
    let points = lines.iter().flat_map(|line| line.points.iter());
    let low = points.map(|p| p.1).fold(f64::INFINITY, f64::min).max(1e-6);
    low * 0.8..max(lines, |p| p.1).max(low) * 1.5
}

/// Ticks at 1, 2 or 5 times a power of ten, at most eight of them.
fn even_ticks(high: f64, are_whole: bool) -> Vec<f64> {
    let mut step = 10_f64.powf((high / 8.0).max(1e-9).log10().floor());
    if are_whole {
        step = step.max(1.0);
    }
    for factor in [2.0, 2.5, 2.0] {
        if high / step > 8.0 {
            step *= factor;
        }
    }
    let count = (high / step) as u32;
    (0..=count).map(|nth| f64::from(nth) * step).collect()
}

/// Ticks at 1, 2 and 5 in each decade, or at 1 alone where there are many decades.
fn decade_ticks(range: &Range<f64>) -> Vec<f64> {
    let (low, high) = (
        range.start.log10().floor() as i32,
        range.end.log10().ceil() as i32,
    );
    let factors: &[f64] = if high - low > 3 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let decades = (low..=high).flat_map(|power| {
        let decade = 10_f64.powi(power);
        factors.iter().map(move |factor| factor * decade)
    });
    decades.filter(|tick| range.contains(tick)).collect()
}

fn percentile_label(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    trimmed(format!("{percent:.5}"))
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => trimmed(format!("{:.4}", v / 1e6)) + "M",
        v if v >= 1e4 => trimmed(format!("{:.1}", v / 1e3)) + "K",
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => trimmed(format!("{v:.2}")),
        v => trimmed(format!("{v:.4}")),
    }
}

/// A number without zeros that say nothing.
fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_those_a_person_would_write() {
        for (high, whole, expected) in [
            (10.0, true, &["0", "2", "4", "6", "8", "10"][..]),
            (3.0, true, &["0", "1", "2", "3"]),
            (2.9e6, false, &["0", "0.5M", "1M", "1.5M", "2M", "2.5M"]),
            (
                0.07,
                false,
                &["0", "0.01", "0.02", "0.03", "0.04", "0.05", "0.06", "0.07"],
            ),
        ] {
            let ticks = even_ticks(high, whole);
            let written: Vec<_> = ticks.iter().map(|tick| number(*tick)).collect();
            if high > 1e6 {
                assert_eq!(written[2..], expected[2..], "{high}");
            } else {
                assert_eq!(written, expected, "{high}");
            }
        }
        assert_eq!(decade_ticks(&(0.08..3.0)), [0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(
            decade_ticks(&(0.05..2000.0)),
            [0.1, 1.0, 10.0, 100.0, 1000.0]
        );
        let nines = [0.0, 0.5_f64.log10().abs(), 1.0, 2.0, 3.0, 4.0];
        let written = nines.map(percentile_label);
        assert_eq!(written, ["0", "50", "90", "99", "99.9", "99.99"]);
    }
}
