//! The token verifier: desktop servers ask whether a connection token lets somebody in.
//!
//! Decided from the caches; only a session they do not know is waited for, as the other calls do. Answers HTTP 200 for
//! yes and for no, whatever was sent; 503 when neither can be said.

use std::sync::Arc;

use axum::Form;
use axum::Router;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use http::header::CONTENT_TYPE;

use super::App;
use super::guarded;
use super::health;
use super::problem::Problem;
use crate::api::DcvSession;
use crate::token::ConnectionClaims;
use crate::token::Kind;
use crate::token::verifier;
use crate::token::verifier::Denial;
use crate::token::verifier::Instance;
use crate::token::verifier::Question;

/// Everything served to desktop servers.
pub fn router(app: Arc<App>) -> Router {
    let routes = Router::new().route("/health", get(health)).route(verifier::PATH, post(validate));
    guarded(routes, verifier::BODY_MAX_BYTES, &app.rules).with_state(app)
}

/// `POST /agent/validate-authentication-token`, the documented form.
async fn validate(
    State(app): State<Arc<App>>,
    question: Result<Form<Question>, FormRejection>,
) -> Result<Response, Problem> {
    if !app.store.is_ready() {
        return Err(Problem::Starting);
    }
    let verdict = match question {
        Ok(Form(question)) => judge(&app, &question).await?,
        Err(_) => Err(Denial::Malformed),
    };
    let text = verifier::answer(verdict.as_ref().map(|claims| claims.session_user.as_str()).map_err(|denial| *denial));
    Ok(([(CONTENT_TYPE, verifier::ANSWER_TYPE)], text).into_response())
}

/// What the token says, or why nobody is let in.
async fn judge(app: &App, question: &Question) -> Result<Result<ConnectionClaims, Denial>, Problem> {
    let keys = app.store.keys(Kind::Connection).ok_or(Problem::Starting)?;
    let claims = match verifier::read(&question.token, Some(&question.session_id), &keys.public, (app.now)()) {
        Ok(claims) => claims,
        Err(denial) => {
            // Not the session: nothing says yet that what stands there is one.
            tracing::info!(%denial, "nobody let in");
            return Ok(Err(denial));
        }
    };
    let found = app.store.locate(&claims.session_id).await?;
    // Hosts may give the same id; the token is for one of them.
    let mut verdict = Err(Denial::Unavailable);
    for located in &found {
        verdict = instance(&located.session).admit(&claims);
        if verdict.is_ok() {
            break;
        }
    }
    if let Err(denial) = verdict {
        tracing::info!(session = claims.session_id, %denial, "nobody let in");
    }
    Ok(verdict.map(|()| claims))
}

fn instance(session: &DcvSession) -> Instance<'_> {
    Instance {
        server_uid: session.status.as_ref().and_then(|status| status.server_uid.as_deref()).unwrap_or_default(),
        attempt: session.attempt(),
        is_open: session.is_open(),
        tokens_valid_from: session.spec.tokens_valid_from.as_ref().map(|time| time.0),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use serde_json::json;
    use tower::ServiceExt;

    use super::super::Rules;
    use super::super::cache::Change;
    use super::super::memory::Memory;
    use super::super::memory::merge;
    use super::super::memory::now;
    use super::super::memory::ready_on;
    use super::*;
    use crate::token;
    use crate::token::AgentClaims;

    const ID: &str = "7f8a2c1e-0000-4000-8000-000000000001";

    fn claims() -> ConnectionClaims {
        let iat = now().as_second();
        ConnectionClaims {
            session_id: ID.into(),
            session_owner: "ann".into(),
            session_user: "bob<&>".into(),
            server_uid: "uid-s1".into(),
            attempt: 1,
            client_uid: None,
            iat,
            exp: iat + 60,
            jti: "j".into(),
            aud: Kind::Connection.audience().into(),
        }
    }

    fn with_session(changes: Value) -> Arc<Memory> {
        let memory = Memory::new();
        let mut session = ready_on("s1");
        merge(&mut session, changes);
        memory.add_session(ID, session);
        Arc::new(memory)
    }

    fn signed(memory: &Memory, kind: Kind, claims: &ConnectionClaims) -> String {
        let keys = memory.cache.keys(kind).unwrap();
        token::sign(claims, keys.private.signer(now()).unwrap()).unwrap()
    }

    async fn send(memory: &Arc<Memory>, request: Request<Body>) -> (u16, String, String) {
        let app = Arc::new(App::plain(Arc::clone(memory) as _, Rules::default(), now));
        let response = router(app).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind.unwrap_or_default(), String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn post(memory: &Arc<Memory>, body: String) -> (u16, String, String) {
        let request = Request::post(verifier::PATH).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        send(memory, request.body(Body::from(body)).unwrap()).await
    }

    async fn ask(memory: &Arc<Memory>, token: &str) -> (u16, String, String) {
        post(memory, format!("sessionId={ID}&authenticationToken={token}&clientAddress=10.0.0.1")).await
    }

    fn yes() -> (u16, String, String) {
        (200, "text/xml".into(), "<auth result=\"yes\"><username>bob&lt;&amp;&gt;</username></auth>".into())
    }

    fn no(message: &str) -> (u16, String, String) {
        (200, "text/xml".into(), format!("<auth result=\"no\"><message>{message}</message></auth>"))
    }

    #[tokio::test]
    async fn a_good_token_names_its_user_with_and_without_a_client_address_and_more_than_once() {
        let memory = with_session(json!({}));
        let token = signed(&memory, Kind::Connection, &claims());
        assert_eq!(ask(&memory, &token).await, yes());
        assert_eq!(post(&memory, format!("sessionId={ID}&authenticationToken={token}")).await, yes());
    }

    #[tokio::test]
    async fn a_token_of_another_kind_key_session_instance_or_time_is_refused() {
        let memory = with_session(json!({}));
        let sign = |claims: &ConnectionClaims| signed(&memory, Kind::Connection, claims);
        let agents = AgentClaims {
            action: token::agent::Action::Screenshot,
            server_uid: "uid-s1".into(),
            session_id: ID.into(),
            attempt: 1,
            client_uid: "uid-red".into(),
            iat: now().as_second(),
            exp: now().as_second() + 60,
            jti: "j".into(),
            aud: Kind::Connection.audience().into(),
        };
        let keys = memory.cache.keys(Kind::Connection).unwrap();
        let other_kind = token::sign(&agents, keys.private.signer(now()).unwrap()).unwrap();
        assert_eq!(ask(&memory, &other_kind).await, no("malformed token"));
        assert_eq!(
            ask(&memory, &signed(&memory, Kind::Access, &claims())).await,
            no("token signed with an unknown key")
        );
        assert_eq!(ask(&memory, "nonsense").await, no("malformed token"));
        for (changed, message) in [
            (ConnectionClaims { exp: now().as_second(), ..claims() }, "token expired"),
            (ConnectionClaims { session_id: "other".into(), ..claims() }, "token is for another session"),
            (
                ConnectionClaims { server_uid: "uid-s2".into(), ..claims() },
                "token is for another instance of the session",
            ),
            (ConnectionClaims { attempt: 2, ..claims() }, "token is for another instance of the session"),
        ] {
            assert_eq!(ask(&memory, &sign(&changed)).await, no(message));
        }
    }

    #[tokio::test]
    async fn a_session_that_is_not_ready_closing_over_gone_or_revoked_is_not_entered() {
        let finished = json!({"status": {"state": "DELETED", "conditions": [
            {"type": "Created", "status": "True", "reason": "Created", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"},
            {"type": "Finished", "status": "True", "reason": "Closed", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]}});
        for (changes, message) in [
            (json!({"status": {"conditions": []}}), "session is not available"),
            (json!({"spec": {"desiredState": "Closed"}}), "session is not available"),
            (json!({"metadata": {"deletionTimestamp": "2026-11-21T10:00:00Z"}}), "session is not available"),
            (finished, "session is not available"),
            (json!({"spec": {"tokensValidFrom": "2026-11-21T10:00:01Z"}}), "token was revoked"),
        ] {
            let memory = with_session(changes.clone());
            let token = signed(&memory, Kind::Connection, &claims());
            assert_eq!(ask(&memory, &token).await, no(message), "{changes}");
        }
        let memory = with_session(json!({}));
        let token = signed(&memory, Kind::Connection, &claims());
        memory.cache.write().apply_session(Change::Gone { uid: ID.into(), version: 9999 });
        assert_eq!(ask(&memory, &token).await, no("session is not available"));
    }

    #[tokio::test]
    async fn a_desktop_whose_agent_is_silent_is_entered_as_it_is_its_own_server_that_asks() {
        let memory = with_session(json!({"status": {"state": "UNKNOWN"}}));
        let token = signed(&memory, Kind::Connection, &claims());
        assert_eq!(ask(&memory, &token).await, yes());
    }

    #[tokio::test]
    async fn of_two_sessions_with_one_id_the_tokens_own_is_meant() {
        let memory = with_session(json!({"status": {"sessionId": "console"}}));
        let mut other = ready_on("s2");
        merge(&mut other, json!({"metadata": {"namespace": "blue"}, "status": {"sessionId": "console"}}));
        memory.add_session("7f8a2c1e-0000-4000-8000-000000000002", other);
        for (server, expected) in
            [("uid-s1", yes()), ("uid-s2", yes()), ("uid-s3", no("token is for another instance of the session"))]
        {
            let claims = ConnectionClaims { session_id: "console".into(), server_uid: server.into(), ..claims() };
            let token = signed(&memory, Kind::Connection, &claims);
            let answer = post(&memory, format!("sessionId=console&authenticationToken={token}")).await;
            assert_eq!(answer, expected, "{server}");
        }
    }

    #[tokio::test]
    async fn what_is_not_the_form_is_a_no_and_other_methods_and_paths_are_errors() {
        let memory = with_session(json!({}));
        let token = signed(&memory, Kind::Connection, &claims());
        for body in [
            String::new(),
            format!("sessionId={ID}"),
            format!("authenticationToken={token}"),
            format!(
                "sessionId={ID}&authenticationToken={token}&clientAddress={}",
                "x".repeat(verifier::BODY_MAX_BYTES)
            ),
        ] {
            assert_eq!(post(&memory, body).await, no("malformed request"));
        }
        let request = |request: http::request::Builder| request.body(Body::empty()).unwrap();
        assert_eq!(send(&memory, request(Request::get(verifier::PATH))).await.0, 405);
        assert_eq!(send(&memory, request(Request::post("/describeSessions"))).await.0, 404);
        assert_eq!(send(&memory, request(Request::get("/health"))).await.0, 200);
    }

    #[tokio::test]
    async fn neither_yes_nor_no_is_said_before_the_caches_are_filled() {
        assert_eq!(ask(&Arc::new(Memory::starting()), "token").await.0, 503);
    }
}
