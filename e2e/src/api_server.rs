//! What an API server has been asked, by its own count.

use kube::Client;

/// How many requests it has answered of which `is_counted` says so of the labels, such as `group="dcv-operator.io",verb="GET"`.
pub async fn requests(client: &Client, is_counted: impl Fn(&str) -> bool) -> u64 {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = client.request_text(request).await.expect("the API server has metrics");
    let counted = text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")?.rsplit_once("} "));
    let counts = counted.filter(|(labels, _)| is_counted(labels)).map(|(_, count)| count);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts")]
    counts.map(|count| count.parse::<f64>().expect("a count") as u64).sum()
}
