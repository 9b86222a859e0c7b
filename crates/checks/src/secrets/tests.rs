//! No credential stands here in one piece: all are assembled, so that no scanner, ours included,
//! takes this file for a leak.

use proptest::prelude::*;

use super::*;

const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// `length` varied characters, the same each time.
fn varied(alphabet: &[u8], length: usize) -> String {
    let mut state = 0x2545_f491_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(alphabet[(state >> 16) as usize % alphabet.len()])
        })
        .collect()
}

fn an(length: usize) -> String {
    varied(ALNUM, length)
}

fn hex(length: usize) -> String {
    varied(HEX, length)
}

fn with_crc(prefix: &str) -> String {
    let body = an(30);
    format!(
        "{prefix}{body}{}",
        plausible::base62(crc32fast::hash(body.as_bytes()))
    )
}

fn base64url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

fn key_header(kind: &str) -> String {
    format!("-----BEGIN {kind}{}-----", ["PRIVATE", " KEY"].concat())
}

/// For each rule a line (or lines) that it must find, and one that it must not.
fn examples() -> Vec<(&'static str, String, String)> {
    let bad_crc = |prefix: &str| format!("{prefix}{}", an(36));
    let jwt = |header: &str, claims: &str| {
        format!("{}.{}.{}", base64url(header), base64url(claims), an(43))
    };
    let pre = |parts: &[&str]| parts.concat();
    let docker = |pair: &str| {
        use base64::Engine;
        let auth = base64::engine::general_purpose::STANDARD.encode(pair);
        format!(r#"{{"auths":{{"r":{{"auth": "{auth}"}}}}}}"#)
    };
    vec![
        (
            "aws-access-key-id",
            format!("id = {}{}", pre(&["AK", "IA"]), varied(UPPER, 16)),
            format!("id = {}IOSFODNN7EXAMPLE", pre(&["AK", "IA"])),
        ),
        (
            "aws-secret-access-key",
            format!("aws_secret_access_key = {}", an(40)),
            format!("aws_secret_access_key = {}EXAMPLEKEY", an(30)),
        ),
        (
            "gcp-service-account",
            format!(r#"  "private_key_id": "{}","#, hex(40)),
            format!(r#"  "private_key_id": "{}","#, "0".repeat(40)),
        ),
        (
            "google-api-key",
            format!("{}{}", pre(&["AI", "za"]), an(35)),
            format!("{}{}", pre(&["AI", "za"]), an(34)),
        ),
        (
            "google-oauth-secret",
            format!("GOC{}-{}", "SPX", an(28)),
            "GOCSPX-".into(),
        ),
        (
            "google-oauth-token",
            format!("ya{}.{}", "29", an(60)),
            "ya29.short".into(),
        ),
        (
            "azure-storage-key",
            format!(
                "DefaultEndpointsProtocol=https;Account{}={}==",
                "Key",
                an(86)
            ),
            format!("AccountKey={}==", "x".repeat(86)),
        ),
        (
            "azure-shared-access-key",
            format!("Endpoint=sb://n/;SharedAccess{}={}=", "Key", an(43)),
            "SharedAccessKey=<key>".into(),
        ),
        (
            "azure-client-secret",
            format!("{}8Q{}{}", "abc", "~", an(34)),
            "freq~uency".into(),
        ),
        (
            "azure-sas-token",
            format!(
                "https://a.blob.core.windows.net/c?sv=2024-01-01&se=x&{}={}%3D",
                "sig",
                an(43)
            ),
            "https://h/?sv=1&sig=none".into(),
        ),
        (
            "azure-devops-token",
            format!("{}AZ{}{}", an(76), "DO", an(4)),
            "AZDO".into(),
        ),
        ("github-token", with_crc("ghp_"), bad_crc("ghp_")),
        ("github-oauth-token", with_crc("gho_"), bad_crc("gho_")),
        ("github-app-token", with_crc("ghs_"), bad_crc("ghu_")),
        (
            "github-fine-grained-token",
            format!("github_{}_{}_{}", "pat", an(22), an(59)),
            format!("github_pat_{}", an(22)),
        ),
        (
            "gitlab-token",
            format!("glp{}-{}", "at", an(20)),
            "glpat-xxxxxxxxxxxxxxxxxxxx".into(),
        ),
        (
            "gitlab-runner-registration",
            format!("GR13{}{}", "48941", an(20)),
            "GR1348941".into(),
        ),
        (
            "slack-token",
            format!("xox{}-{}", "b", format_args!("1234506789-{}", an(24))),
            "xoxb-your-token-here".into(),
        ),
        (
            "slack-app-token",
            format!("xap{}-1-A0{}-123-{}", "p", "B1C2", hex(64)),
            "xapp-1-A-1-x".into(),
        ),
        (
            "slack-webhook",
            format!(
                "https://hooks.slack.com/services/T{}/B{}/{}",
                an(8),
                an(8),
                an(24)
            ),
            "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX".into(),
        ),
        (
            "stripe-key",
            format!("sk_{}_{}", "live", an(24)),
            "sk_live_xxxxxxxxxxxxxxxx".into(),
        ),
        (
            "stripe-webhook-secret",
            format!("whs{}_{}", "ec", an(32)),
            "whsec_...".into(),
        ),
        ("npm-token", with_crc("npm_"), bad_crc("npm_")),
        (
            "npmrc-auth-token",
            format!(
                "//registry.npmjs.org/:_auth{}={}-{}",
                "Token",
                hex(8),
                hex(12)
            ),
            "//registry.npmjs.org/:_authToken=${NPM_TOKEN}".into(),
        ),
        (
            "pypi-token",
            format!("pypi-AgEI{}{}", "cHlwaS5vcmc", an(100)),
            "pypi-AgEIcHlwaS5vcmc".into(),
        ),
        (
            "crates-io-token",
            format!("ci{}{}", "o", an(32)),
            "ciortezwayasanidentifierofmanyletters".into(),
        ),
        (
            "rubygems-token",
            format!("ruby{}_{}", "gems", hex(48)),
            "rubygems_mirror".into(),
        ),
        (
            "nuget-key",
            format!("oy{}{}", "2", varied(LOWER, 43)),
            "oy2".into(),
        ),
        (
            "docker-token",
            format!("dckr_{}_{}", "pat", an(27)),
            "dckr_pat_".into(),
        ),
        (
            "docker-config-auth",
            docker("robot:s3cr3tpw"),
            docker("user:example"),
        ),
        (
            "anthropic-key",
            format!("sk-{}-api03-{}", "ant", an(93)),
            format!("sk-ant-api03-{}", "x".repeat(60)),
        ),
        (
            "openrouter-key",
            format!("sk-{}-v1-{}", "or", hex(64)),
            "sk-or-v1-...".into(),
        ),
        (
            "openai-key",
            format!("sk-{}{}{}", an(20), ["T3Blbk", "FJ"].concat(), an(20)),
            "sk-proj-your-key".into(),
        ),
        (
            "huggingface-token",
            format!("h{}_{}", "f", an(34)),
            "hf_hub_download_with_resume_option_x".into(),
        ),
        ("groq-key", format!("gs{}_{}", "k", an(52)), "gsk_".into()),
        ("xai-key", format!("xa{}-{}", "i", an(80)), "xai-sdk".into()),
        (
            "replicate-token",
            format!("r{}_{}", "8", an(37)),
            "r8_unorm".into(),
        ),
        (
            "perplexity-key",
            format!("ppl{}-{}", "x", an(48)),
            "pplx-api".into(),
        ),
        (
            "sendgrid-key",
            format!("S{}.{}.{}", "G", an(22), an(43)),
            "SG.configuration".into(),
        ),
        (
            "twilio-key",
            format!("S{}{}", "K", hex(32)),
            format!("SK{}", "0".repeat(32)),
        ),
        (
            "mailgun-key",
            format!("ke{}-{}", "y", hex(32)),
            "key-value".into(),
        ),
        (
            "mailchimp-key",
            format!("{}-us{}", hex(32), 12),
            "en-us1".into(),
        ),
        (
            "digitalocean-token",
            format!("do{}_v1_{}", "p", hex(64)),
            "dop_v1_".into(),
        ),
        (
            "databricks-token",
            format!("da{}{}", "pi", hex(32)),
            "dapi0".into(),
        ),
        (
            "shopify-token",
            format!("shp{}_{}", "at", hex(32)),
            "shpat_token".into(),
        ),
        (
            "telegram-bot-token",
            format!("123450987:A{}{}", "A", an(33)),
            "time: 12:AArdvark".into(),
        ),
        (
            "discord-webhook",
            format!(
                "https://discord.com/api/webhooks/{}/{}",
                "123450987612345098",
                an(68)
            ),
            "https://discord.com/api/webhooks/ID/TOKEN".into(),
        ),
        (
            "linear-key",
            format!("lin_{}_{}", "api", an(40)),
            "lin_api_key".into(),
        ),
        (
            "notion-token",
            format!("nt{}_{}", "n", an(46)),
            "ntn_".into(),
        ),
        (
            "vault-token",
            format!("hv{}.{}", "s", an(90)),
            "hvs.token".into(),
        ),
        (
            "terraform-cloud-token",
            format!("{}.{}.{}", an(14), "atlasv1", an(67)),
            "x.atlasv1.y".into(),
        ),
        (
            "pulumi-token",
            format!("pu{}-{}", "l", hex(40)),
            "pul-request".into(),
        ),
        (
            "doppler-token",
            format!("dp.{}.{}", "pt", varied(LOWER, 43)),
            "dp.pt.x".into(),
        ),
        (
            "grafana-token",
            format!("gl{}_{}_{}", "sa", an(32), hex(8)),
            "glsa_token".into(),
        ),
        (
            "sentry-token",
            format!("sntry{}_{}", "u", hex(64)),
            "sntryu_".into(),
        ),
        (
            "newrelic-key",
            format!("NR{}-{}", "AK", varied(UPPER, 27)),
            "NRAK-KEY".into(),
        ),
        (
            "datadog-key",
            format!("DD_API_{}={}", "KEY", hex(32)),
            "DD_API_KEY=$KEY".into(),
        ),
        (
            "postman-key",
            format!("PM{}-{}-{}", "AK", hex(24), hex(34)),
            "PMAK-x".into(),
        ),
        (
            "square-token",
            format!("sq0{}-{}", "atp", an(22)),
            "sq0atp-".into(),
        ),
        (
            "atlassian-token",
            format!("ATAT{}{}", "T3", an(180)),
            "ATATT3".into(),
        ),
        (
            "airtable-token",
            format!("pa{}{}.{}", "t", an(14), hex(64)),
            "path.to".into(),
        ),
        ("fly-token", format!("fm{}_{}", "2", an(100)), "fm2_".into()),
        (
            "supabase-token",
            format!("sb{}_{}", "p", hex(40)),
            "sbp_role".into(),
        ),
        (
            "planetscale-token",
            format!("pscale_{}_{}", "tkn", an(43)),
            "pscale_tkn_x".into(),
        ),
        (
            "heroku-token",
            format!("HR{}-{}", "KU", an(60)),
            "HRKU-x".into(),
        ),
        (
            "onepassword-token",
            format!("ops_e{}{}", "yJ", an(250)),
            "ops_eyJ".into(),
        ),
        (
            "age-key",
            format!(
                "AGE-SECRET-{}{}",
                "KEY-1",
                varied(b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)
            ),
            "AGE-SECRET-KEY-1...".into(),
        ),
        (
            "private-key",
            format!("{}\n{}\n", key_header("RSA "), an(64)),
            format!(
                "if text.starts_with(\"{}\") {{\n    parse(text)\n}}",
                key_header("")
            ),
        ),
        (
            "private-key-body",
            format!("{}{}", ["b3BlbnNzaC1rZXkt", "djEAAAAA"].concat(), an(40)),
            "let magic = \"b3BlbnNzaC1rZXktdjEAAAAA\";".into(),
        ),
        (
            "putty-key",
            ["Private", "-Lines: 14"].concat(),
            "Private lines: 14".into(),
        ),
        (
            "jwt",
            jwt(
                r#"{"alg":"HS256","typ":"JWT"}"#,
                r#"{"sub":"42","admin":true}"#,
            ),
            jwt(
                r#"{"alg":"HS256"}"#,
                r#"{"sub":"1234567890","name":"John Doe"}"#,
            ),
        ),
        (
            "url-password",
            format!("DATABASE=postgres://svc:{}@db.internal/app", an(14)),
            "DATABASE=postgres://postgres:postgres@localhost/app".into(),
        ),
        (
            "authorization-header",
            format!("curl -H 'Authorization: Bearer {}'", an(40)),
            "curl -H 'Authorization: Bearer ${TOKEN}'".into(),
        ),
        (
            "netrc-password",
            format!("machine api.host login bot password {}", an(12)),
            "machine api.host login bot password $PASSWORD".into(),
        ),
        (
            "assigned-secret",
            format!("let client_secret = \"{}\";", an(28)),
            "let client_secret = \"my-client-secret-name\";".into(),
        ),
        (
            "configured-secret",
            format!("DB_PASSWORD={}", an(16)),
            "DB_PASSWORD=${DB_PASSWORD}".into(),
        ),
    ]
}

#[test]
fn every_rule_finds_its_example_and_not_its_look_alike() {
    for (rule, real, look_alike) in examples() {
        let found = scan_text("conf/app.env", &real);
        assert!(
            found.iter().any(|f| f.rule == rule),
            "{rule} misses {real:?}: {found:?}"
        );
        let found = scan_text("conf/app.env", &look_alike);
        assert!(
            found.is_empty(),
            "{rule} takes {look_alike:?} for real: {found:?}"
        );
    }
}

#[test]
fn every_rule_has_an_example() {
    let tested: Vec<_> = examples().into_iter().map(|(rule, ..)| rule).collect();
    for rule in rules() {
        assert!(tested.contains(&rule.id), "{} has no example", rule.id);
    }
    let mut ids: Vec<_> = rules().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rules().count(), "ids are unique");
}

#[test]
fn words_are_lower_case_and_needed() {
    for rule in formats::RULES {
        assert!(!rule.words.is_empty(), "{}", rule.id);
        for word in rule.words {
            assert_eq!(*word, word.to_ascii_lowercase(), "{}", rule.id);
        }
    }
}

/// The published example of GitHub's checksum: the tail of this body is `0mLq17`.
#[test]
fn the_checksum_is_githubs() {
    assert_eq!(
        plausible::base62(crc32fast::hash(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ")),
        "0mLq17"
    );
}

#[test]
fn assignments_in_many_languages() {
    let secret = an(24);
    for line in [
        format!("password = '{secret}'"),
        format!("const apiKey: string = \"{secret}\";"),
        format!("\"client_secret\": \"{secret}\","),
        format!("self.auth_token = f\"{secret}\""),
        format!("API_KEY := `{secret}`"),
        format!(":password => '{secret}'"),
        format!("config[\"secret_key\"] = \"{secret}\""),
        format!("setPassword(\"{secret}\")"),
        format!("static SIGNING_KEY: &str = \"{secret}\";"),
        format!("    <add key=\"x\" password=\"{secret}\" />"),
        "db_password = \"Tr0ub4dor&3x\"".to_owned(),
        "password: \"S3cure!pass9\"".to_owned(),
    ] {
        let found = scan_text("src/config.py", &line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
    }
}

#[test]
fn references_words_and_digests_are_no_secrets() {
    for line in [
        "password = os.environ['DB_PASSWORD']",
        "password = \"${DB_PASSWORD}\"",
        "token: \"{{ secrets.TOKEN }}\"",
        "token: ${{ secrets.GITHUB_TOKEN }}",
        "token = \"access_token\"",
        "secret = \"my-very-secret-secret\"",
        "token_url = \"https://login.host/oauth2/v1/token\"",
        "password = \"password\"",
        "password_field = \"form-password-input-2\"",
        "API_KEY = \"your-api-key-here-1234\"",
        "token = \"<your token 123>\"",
        "access_token: \"xxxxxxxxxxxxxxxxxxxx\"",
        "secret_key = \"/run/secrets/key2\"",
        "PASSWORD=\"$(cat /run/secrets/db1)\"",
        "passwordHash = \"sha256:0123\"",
        "private_key = load_pem(\"keys/server1.pem\")",
        "errors.password = \"Passwords do not match\"",
        "let token = parser.next_token(\"identifier1\");",
        "tokenizer = \"bert-base-uncased-v12\"",
        "ssh://git@github.com:22/org/repo",
        "https://user:pass@host/",
        "https://aladdin:opensesame9@proxy.example.com/",
        "\"AWS::IAM::AccessKey\": \"62d91b17309e76c8\",",
        "\"NextToken\": \"eyJNYXJrZXIiOiBudWxsLCA3\",",
        "http://localhost:8080/a@b",
        "see https://example.com:443/@scope",
    ] {
        let found = scan_text("src/config.py", line);
        assert!(found.is_empty(), "{line}: {found:?}");
    }
}

#[test]
fn lock_files_have_no_assignments_but_known_formats_count() {
    let line = format!("token = \"{}\"", an(30));
    assert_eq!(scan_text("src/a.toml", &line).len(), 1);
    assert!(scan_text("Cargo.lock", &line).is_empty());
    assert_eq!(scan_text("Cargo.lock", &with_crc("ghp_")).len(), 1);
}

#[test]
fn a_finding_never_holds_the_secret() {
    for (rule, real, _) in examples() {
        for finding in scan_text("conf/app.env", &real) {
            let shown = format!("{finding:?}{}", serde_json::to_string(&finding).unwrap());
            for window in an(60)
                .as_bytes()
                .windows(8)
                .chain(hex(60).as_bytes().windows(8))
            {
                let part = std::str::from_utf8(window).unwrap();
                assert!(!shown.contains(part), "{rule} shows {part} in {shown}");
            }
            assert!(finding.redacted.chars().count() < 80, "{shown}");
        }
    }
}

#[test]
fn lines_and_columns_are_exact() {
    let text = format!(
        "a\n\u{e9}\u{e9} {}\r\nb\n  x {}",
        with_crc("ghp_"),
        with_crc("npm_")
    );
    let found = scan_text("a.txt", &text);
    let places: Vec<_> = found.iter().map(|f| (f.rule, f.line, f.column)).collect();
    assert_eq!(places, [("github-token", 2, 4), ("npm-token", 4, 5)]);
    assert_eq!(scan_line("a.txt", 17, &with_crc("ghp_"))[0].line, 17);
    let token = with_crc("ghp_");
    let lines = [(3, "nothing"), (90, token.as_str())];
    assert_eq!(scan_lines("a.txt", lines)[0].line, 90);
    assert_eq!(found[0].redacted, "ghp_… (40 characters)");
}

#[test]
fn a_key_that_spans_added_lines_is_seen() {
    let (header, body) = (key_header("OPENSSH "), an(70));
    let found = scan_lines("id", [(5, header.as_str()), (6, body.as_str())]);
    assert_eq!(
        (found.len(), found[0].rule, found[0].line),
        (1, "private-key", 5)
    );
    let escaped = format!("\"private_key\": \"{}\\n{}\\n\"", key_header(""), an(64));
    assert_eq!(scan_text("k.json", &escaped)[0].rule, "private-key");
}

#[test]
fn a_key_in_a_comment_is_seen() {
    for mark in ["//! ", "# ", "> ", " * ", "\t\"", "+ "] {
        let text = format!("{mark}{}\n{mark}{}\n", key_header("EC "), an(64));
        assert_eq!(scan_text("a.rs", &text).len(), 1, "{mark:?}");
    }
}

#[test]
fn a_header_and_its_body_are_one_finding() {
    let text = format!(
        "{}\n{}{}\n",
        key_header("RSA "),
        ["MIIEpAIB", "AAKCAQEA"].concat(),
        an(48)
    );
    let found = scan_text("k.pem", &text);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn binary_is_skipped_and_long_lines_are_not() {
    let token = with_crc("ghp_");
    assert!(scan_text("a", &format!("\0{token}")).is_empty());
    for before in [
        PIECE_MAX_BYTES - 20,
        PIECE_MAX_BYTES,
        3 * PIECE_MAX_BYTES + 7,
    ] {
        let text = format!(
            "{} {token} {}",
            " x".repeat(before / 2),
            " y".repeat(PIECE_MAX_BYTES)
        );
        let found = scan_text("a.js", &text);
        assert_eq!(found.len(), 1, "{before}");
        assert_eq!(found[0].column as usize, 2 * (before / 2) + 2);
    }
}

#[test]
fn findings_are_bounded() {
    let text = format!("{}\n", with_crc("ghp_")).repeat(FINDINGS_MAX * 2);
    assert_eq!(scan_text("a", &text).len(), FINDINGS_MAX);
}

/// No comment and no marker in the file switches the scanner off.
#[test]
fn the_author_can_not_excuse_a_secret() {
    for comment in [
        "# gitleaks:allow",
        "// nosec",
        "# pragma: allowlist secret",
        "# noqa",
    ] {
        let line = format!("{} {comment}", with_crc("ghp_"));
        assert_eq!(
            scan_text("tests/fixtures/a.py", &line).len(),
            1,
            "{comment}"
        );
    }
}

#[test]
fn this_crate_holds_no_secret() {
    for (path, text) in [
        ("secrets.rs", include_str!("../secrets.rs")),
        ("tests.rs", include_str!("tests.rs")),
        ("formats.rs", include_str!("formats.rs")),
        ("plausible.rs", include_str!("plausible.rs")),
        ("assignment.rs", include_str!("assignment.rs")),
    ] {
        assert_eq!(scan_text(path, text), [], "{path}");
    }
}

proptest! {
    #[test]
    fn any_text_is_scanned(text in "\\PC{0,200}", path in "[a-z.]{0,12}") {
        for finding in scan_text(&path, &text) {
            prop_assert!(finding.line >= 1 && finding.column >= 1);
        }
    }

    #[test]
    fn a_token_is_found_wherever_it_stands(
        before in "[ \\n=:\"',;(a-z\u{e4}]{0,40}",
        after in "[ \\n\"',;)]{0,40}",
    ) {
        let text = format!("{before} {}{after}", with_crc("ghp_"));
        let found = scan_text("a.rs", &text);
        prop_assert_eq!(found.len(), 1);
        let line = text.split('\n').nth(found[0].line as usize - 1).unwrap();
        let at: String = line.chars().skip(found[0].column as usize - 1).take(4).collect();
        prop_assert_eq!(at, "ghp_");
    }

    /// Mutations of lines that hold words of rules: the parsers behind the rules stay total.
    #[test]
    fn mutated_examples_never_panic(pick in 0_usize..70, cut in 0_usize..200, junk in "\\PC{0,8}") {
        let all = examples();
        let (_, real, _) = &all[pick % all.len()];
        let at = floor_boundary(real, cut % (real.len() + 1));
        let text = format!("{}{junk}{}", &real[..at], &real[at..]);
        let _ = scan_text("a.env", &text);
    }
}
