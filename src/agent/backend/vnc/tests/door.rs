//! Who gets in, and what everybody gets.

use super::*;

#[tokio::test]
async fn the_documented_address_leads_to_the_page_with_the_token_in_a_cookie() {
    let served = serve(|_| ()).await;
    let token = served.token("one", "ann");
    for path in ["/", "/s/one/"] {
        let answer = served.request(&format!("{path}?authToken={token}"), &[]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert_eq!(answer.headers()["location"], "/s/one/");
        let cookie = format!("dcv-token={token}; Path=/s/one/; HttpOnly; Secure; SameSite=Lax");
        assert_eq!(answer.headers()["set-cookie"], cookie.as_str());
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
    }
    let page = served.request("/s/one/", &[("cookie", &format!("a=b; dcv-token={token}"))]).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    let script = page.body().split('"').find(|part| part.ends_with("session.js")).unwrap().to_owned();
    let script = served.request(&script, &[]).await;
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(script.headers()["cache-control"].to_str().unwrap().ends_with("immutable"));
}

#[tokio::test]
async fn every_file_of_the_viewer_is_served_and_nothing_else() {
    let served = serve(|_| ()).await;
    let page = served.request("/s/one/", &[("cookie", &format!("dcv-token={}", served.token("one", "ann")))]).await;
    let base = page.body().split('"').find_map(|part| part.strip_suffix("session.js")).unwrap().to_owned();
    for path in [
        "novnc/core/rfb.js",
        "novnc/vendor/pako/lib/zlib/inflate.js",
        "novnc/LICENSE.txt",
        "novnc/docs/LICENSE.MPL-2.0",
        "novnc/vendor/pako/LICENSE",
        "style.css",
        "icon.svg",
    ] {
        assert_eq!(served.request(&format!("{base}{path}"), &[]).await.status(), StatusCode::OK, "{path}");
    }
    for path in [format!("{base}absent.js"), format!("{base}../mod.rs"), "/assets/0/session.js".into(), base] {
        assert_eq!(served.request(&path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn who_has_no_good_token_learns_nothing() {
    let served = serve(|_| ()).await;
    let with = |change: fn(&mut ConnectionClaims)| {
        let mut claims = claims("one", "ann");
        change(&mut claims);
        served.sign(&claims)
    };
    let agent_token = served.sign(&AgentClaims {
        action: token::agent::Action::Screenshot,
        server_uid: SERVER_UID.into(),
        session_id: "one".into(),
        attempt: 1,
        client_uid: "client".into(),
        iat: NOW,
        exp: NOW + 60,
        jti: "j".into(),
        aud: token::Kind::Agent.audience().into(),
    });
    let wrong = [
        ("of another session", served.token("two", "ann")),
        ("expired", with(|claims| claims.exp = NOW)),
        ("of another attempt", with(|claims| claims.attempt = 2)),
        ("of another server", with(|claims| claims.server_uid = "other".into())),
        ("of another kind", agent_token),
        ("made up", "a.b.c".into()),
        ("of somebody without display", served.token("one", "bob")),
        ("of a session that is not there", served.token("three", "ann")),
    ];
    for path in ["/", "/s/one/"] {
        assert_eq!(served.request(path, &[]).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(served.upgrade("/s/one/ws", &[]).await.unwrap_err(), StatusCode::UNAUTHORIZED);
    let mut bodies = std::collections::BTreeSet::new();
    for (what, token) in &wrong {
        let cookie = format!("dcv-token={token}");
        let answer = served.request("/s/one/", &[("cookie", &cookie)]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{what}");
        bodies.insert(answer.into_body());
        if !what.contains("display") {
            let upgrade = served.upgrade("/s/one/ws", &[("cookie", &cookie)]).await;
            assert_eq!(upgrade.unwrap_err(), StatusCode::FORBIDDEN, "{what}");
            let upgrade = served.upgrade(&format!("/s/one/ws?authToken={token}"), &[]).await;
            assert_eq!(upgrade.unwrap_err(), StatusCode::FORBIDDEN, "{what}");
        }
    }
    assert_eq!(bodies.len(), 1, "one text for all");
    let elsewhere = served.request(&format!("/s/two/?authToken={}", served.token("one", "ann")), &[]).await;
    assert_eq!(elsewhere.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_agent_that_does_not_know_all_yet_refuses_nobody_for_good() {
    let served = serve(|_| ()).await;
    served.cluster.is_whole.store(false, Ordering::Relaxed);
    let cookie = format!("dcv-token={}", served.token("three", "ann"));
    let answer = served.request("/s/three/", &[("cookie", &cookie)]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["refresh"], "2");
    let upgrade = served.upgrade("/s/three/ws", &[("cookie", &cookie)]).await;
    assert_eq!(upgrade.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(served.request("/s/three/", &[]).await.status(), StatusCode::UNAUTHORIZED);
    let known = format!("dcv-token={}", served.token("one", "ann"));
    assert_eq!(served.request("/s/one/", &[("cookie", &known)]).await.status(), StatusCode::OK);
    served.cluster.is_whole.store(true, Ordering::Relaxed);
    let answer = served.request("/s/three/", &[("cookie", &cookie)]).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_open_the_desktop() {
    let served = serve(|_| ()).await;
    let cookie = format!("dcv-token={}", served.token("one", "ann"));
    for (origin, expected) in [
        ("https://evil.example", Err(StatusCode::FORBIDDEN)),
        ("null", Err(StatusCode::FORBIDDEN)),
        (&format!("https://{}", served.address), Ok(())),
    ] {
        let outcome = served.upgrade("/s/one/ws", &[("cookie", &cookie), ("origin", origin)]).await;
        assert_eq!(outcome.map(drop), expected, "{origin}");
    }
    let bearer = format!("Bearer {}", served.token("one", "ann"));
    assert!(served.upgrade("/s/one/ws", &[("authorization", &bearer)]).await.is_ok(), "a bridge has no origin");
}
