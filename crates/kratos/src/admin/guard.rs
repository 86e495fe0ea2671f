//! Who may ask: no web site that somebody has open in a browser on this machine.
//!
//! Nobody is asked for a password here, so two things that a browser would do for any site must
//! not work. *DNS rebinding*: the site's own name is made to mean 127.0.0.1, and its scripts may then
//! read all; the header `host` still says the name. *Requests across sites*: a form or a script of
//! the site sends a POST; it cannot send JSON without asking first, and nobody answers that question;
//! browsers say besides where a request comes from.

use std::net::IpAddr;

use ::http::{HeaderMap, Method, StatusCode, Uri, Version, header, uri::Authority};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{answer::Problem, routes::Admin};

/// Answers instead of the routes where somebody may not ask.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let host = match host(&request) {
        Ok(host) => host,
        Err(problem) => return problem.into_response(),
    };
    if admin.loopback
        && let Some(host) = &host
        && !is_local(host)
    {
        return foreign_host(host).into_response();
    }
    if acts(&request) && !is_of_the_page(request.headers(), host.as_ref()) {
        return foreign_page(request.method()).into_response();
    }
    next.run(request).await
}

/// Whether it changes something. A broker counts it when dead letters are read.
fn acts(request: &Request) -> bool {
    !request.method().is_safe() || request.uri().path().starts_with("/dead-letters/")
}

/// Whom the request says it asks; `None` for HTTP/1.0, which need not say: no browser speaks it.
fn host(request: &Request) -> Result<Option<Authority>, Problem> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let (first, more) = (named.next(), named.next());
    if more.is_some() {
        return Err(Problem::bad("the request has more than one header `host`"));
    }
    let of_uri = request.uri().authority().cloned();
    let Some(first) = first else {
        if of_uri.is_none() && request.version() > Version::HTTP_10 {
            return Err(Problem::bad("the request has no header `host`"));
        }
        return Ok(of_uri);
    };
    let host = Authority::try_from(first.as_bytes());
    let host = host.map_err(|_| Problem::bad("the header `host` is no host and port"))?;
    match of_uri {
        Some(of_uri) if !of_uri.as_str().eq_ignore_ascii_case(host.as_str()) => {
            Err(Problem::bad("the request names two hosts"))
        }
        _ => Ok(Some(host)),
    }
}

/// Whether nobody can make this name mean another machine.
fn is_local(host: &Authority) -> bool {
    let name = host.host();
    let inner = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_address = inner.unwrap_or(name).parse::<IpAddr>().is_ok();
    is_address || name.eq_ignore_ascii_case("localhost")
}

/// Whether what acts comes from our own page, or from no browser.
fn is_of_the_page(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    // Whatever stands between browser and server leaves this one as it is.
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = Uri::try_from(origin.as_bytes()).ok();
    let origin = origin.as_ref().and_then(Uri::authority);
    match (origin, host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host.as_str()),
        _ => false,
    }
}

fn foreign_host(host: &Authority) -> Problem {
    let host: String = host.as_str().chars().take(200).collect();
    Problem::new(
        StatusCode::FORBIDDEN,
        format!(
            "{host} is neither an IP address nor localhost, and any web site can give its name to \
             this machine: ask for http://127.0.0.1 or http://localhost, or let the proxy in \
             between set the header `host`"
        ),
    )
}

fn foreign_page(method: &Method) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        format!("{method} from the page of another web site: use the operations page, or curl"),
    )
}
