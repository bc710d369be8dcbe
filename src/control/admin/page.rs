//! The dashboard: three files that are part of the program.
//!
//! Invariants: they tell nothing of the broker, so that whoever reaches the listener may have them; what the
//! page asks for afterwards takes a token where anything does. The browser is told to take nothing from
//! elsewhere and to run nothing that stands in the page itself.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::response::IntoResponse;
use axum::routing::get;

/// A path, what kind of text it is, and the text.
type Part = (&'static str, &'static str, &'static str);

const PARTS: [Part; 3] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/page/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    (
        "/page/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
];

/// What the browser may do with them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the page's own.
pub(super) fn is_part(path: &str) -> bool {
    PARTS.iter().any(|(known, ..)| *known == path)
}

/// The page's files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PARTS.into_iter().fold(Router::new(), |router, part| {
        let (path, ..) = part;
        router.route(path, get(async move || answer(part)))
    })
}

fn answer((_, kind, text): Part) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, text)
}
