//! How rejections look and which headers clients see.

use super::super::error::{Context, Step};
use super::super::model::{ResponseHeaders, ResponseTemplate, Responses};
use super::super::node::{Kind, Node};
use super::fields::{Fields, Schema};
use super::value;

static RESPONSES: Schema =
    Schema { name: "responses", fields: &["rate_limited", "circuit_open", "overloaded", "invalid_request"] };
static RESPONSE: Schema = Schema { name: "response", fields: &["status", "headers", "body", "content_type"] };
static HEADERS: Schema = Schema { name: "headers", fields: &["ratelimit", "reason"] };

pub(super) const SCHEMAS: &[&Schema] = &[&RESPONSES, &RESPONSE, &HEADERS];

const MAX_HEADERS: usize = 64;
const MAX_BODY: usize = 65_536;

pub(super) fn responses(cx: &mut Context, node: &Node) -> Option<Responses> {
    let fields = Fields::open(cx, node, &RESPONSES)?;
    let rate_limited = fields.or(cx, "rate_limited", ResponseTemplate::default(), response);
    let circuit_open = fields.or(cx, "circuit_open", ResponseTemplate::default(), response);
    let overloaded = fields.or(cx, "overloaded", ResponseTemplate::default(), response);
    let invalid_request = fields.or(cx, "invalid_request", ResponseTemplate::default(), response);
    Some(Responses {
        rate_limited: rate_limited?,
        circuit_open: circuit_open?,
        overloaded: overloaded?,
        invalid_request: invalid_request?,
    })
}

fn response(cx: &mut Context, node: &Node) -> Option<ResponseTemplate> {
    let fields = Fields::open(cx, node, &RESPONSE)?;
    let status = fields
        .maybe(cx, "status", |cx, node| value::whole(cx, node, 400, 599).and_then(|status| u16::try_from(status).ok()));
    let headers = fields.or(cx, "headers", Vec::new(), extra_headers);
    let body = fields.maybe(cx, "body", |cx, node| value::text(cx, node, 0, MAX_BODY));
    let content_type = fields.maybe(cx, "content_type", value::header_value);
    if !fields.has("body") {
        fields.no_effect(cx, &["content_type"], "without a body");
    }
    Some(ResponseTemplate { status: status?, headers: headers?, body: body?, content_type: content_type? })
}

fn extra_headers(cx: &mut Context, node: &Node) -> Option<Vec<(String, String)>> {
    let Kind::Object(list) = &node.kind else {
        cx.expected(node, "an object of header names and values");
        return None;
    };
    if list.len() > MAX_HEADERS {
        cx.error(node, format!("expected at most {MAX_HEADERS} headers, got {}", list.len()));
        return None;
    }
    let mut headers = Vec::with_capacity(list.len());
    for (index, (name, value)) in list.iter().enumerate() {
        // The same spelling twice is reported for every object.
        let again = list.iter().take(index).any(|(other, _)| other != name && other.eq_ignore_ascii_case(name));
        let header = cx.within(Step::Field(name), |cx| {
            let lower = name.to_ascii_lowercase();
            let problem = match lower.as_str() {
                _ if !value::is_token(name) => "not the name of a header",
                "content-type" => "give it as content_type",
                "content-length" | "transfer-encoding" | "connection" => "the proxy sets this header",
                _ if again => "given more than once; names of headers differ in more than case",
                _ => "",
            };
            if !problem.is_empty() {
                cx.error(value, problem.to_owned());
            }
            let value = value::header_value(cx, value)?;
            problem.is_empty().then_some((lower, value))
        });
        headers.extend(header);
    }
    (headers.len() == list.len()).then_some(headers)
}

pub(super) fn headers(cx: &mut Context, node: &Node) -> Option<ResponseHeaders> {
    let fields = Fields::open(cx, node, &HEADERS)?;
    let choices = [("ietf", (true, false)), ("legacy", (false, true)), ("both", (true, true)), ("off", (false, false))];
    let ratelimit = fields.or(cx, "ratelimit", (true, false), |cx, node| value::one_of(cx, node, &choices));
    let reason = fields.or(cx, "reason", true, value::boolean);
    let (ietf, legacy) = ratelimit?;
    Some(ResponseHeaders { ietf, legacy, reason: reason? })
}
