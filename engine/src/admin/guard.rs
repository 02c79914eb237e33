//! Keeps pages of other sites out of the admin listener.
//!
//! A browser on this machine will send to `127.0.0.1` whatever a page of any site tells it to. Two tricks are
//! known. DNS rebinding: the page's own host name is made to point here, so that it may read the answers; its
//! requests still carry that name, so only known names are served. Cross-site requests: the page sends a form
//! without reading the answer; a form cannot send JSON, and a browser says where a request came from.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Site,
    api::{BODY_BYTES, refusal},
};

/// Lets a request through, or answers why not.
pub(super) async fn check(State(site): State<Site>, request: Request, next: Next) -> Response {
    let host = text(request.headers(), header::HOST.as_str());
    if !is_known(host, &site.hosts) {
        let what = "this host name is not served here: call it by its address or name it in [admin] hosts";
        return refusal(StatusCode::MISDIRECTED_REQUEST, what).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        && let Err(what) = is_ours(request.headers(), host)
    {
        return refusal(StatusCode::FORBIDDEN, what).into_response();
    }
    let length = text(request.headers(), header::CONTENT_LENGTH.as_str());
    if length.parse::<usize>().is_ok_and(|length| length > BODY_BYTES) {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long").into_response();
    }
    next.run(request).await
}

/// An address cannot be rebound; of names, `localhost` and the configured ones are ours.
fn is_known(host: &str, hosts: &[String]) -> bool {
    let name = without_port(host);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_ours(headers: &HeaderMap, host: &str) -> Result<(), &'static str> {
    let origin = text(headers, header::ORIGIN.as_str());
    let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if !(origin.is_empty() || same) {
        return Err("the request comes from a page of another site");
    }
    if !matches!(text(headers, "sec-fetch-site"), "" | "same-origin" | "none") {
        return Err("the request comes from a page of another site");
    }
    let kind = text(headers, header::CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err("the request must have content type application/json");
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_served() {
        let hosts = ["tie.example".to_owned()];
        for host in [
            "127.0.0.1:8061",
            "10.0.0.1",
            "[::1]:8061",
            "[::1]",
            "localhost:1",
            "LocalHost",
            "tie.example:80",
        ] {
            assert!(is_known(host, &hosts), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8061",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "tie.example.org",
        ] {
            assert!(!is_known(host, &hosts), "{host}");
        }
    }

    #[test]
    fn changes_come_from_ourselves_only() {
        let json = ("content-type", "application/json; charset=utf-8");
        for (headers, allowed) in [
            (vec![json], true),
            (vec![json, ("origin", "http://127.0.0.1:8061"), ("sec-fetch-site", "same-origin")], true),
            (vec![json, ("origin", "http://evil.example")], false),
            (vec![json, ("origin", "null")], false),
            (vec![json, ("origin", "http://127.0.0.1:9999")], false),
            (vec![json, ("sec-fetch-site", "cross-site")], false),
            (vec![("content-type", "text/plain")], false),
            (vec![], false),
        ] {
            let map =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(is_ours(&map, "127.0.0.1:8061").is_ok(), allowed, "{headers:?}");
        }
    }
}
