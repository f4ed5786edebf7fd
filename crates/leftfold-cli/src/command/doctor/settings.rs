//! Settings that contradict one another, or do what is seldom meant.
//!
//! **Owns:** these rules. **Does not know:** files, the machine.
//! **Invariants:** what keeps a server from starting is a problem, everything else a warning.

use leftfold_server::Settings;

use super::finding::Finding;

const CHECK: &str = "settings";

/// Everything about the settings; one finding if there is nothing.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = settings
        .check()
        .err()
        .map(|error| Finding::problem(CHECK, error.to_string(), "change this setting"))
        .into_iter()
        .chain(exposure(settings))
        .chain(times(settings))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("a server listens on {}", settings.listen),
        ));
    }
    findings
}

/// Who can reach the server, and what it demands of them.
fn exposure(settings: &Settings) -> Vec<Finding> {
    let listen = settings.listen;
    let is_exposed = !listen.ip().is_loopback();
    let has_tls = !settings.tls_certificate_file.is_empty();
    let mut findings = Vec::new();
    if is_exposed && !has_tls {
        let found = format!("other machines reach {listen} without TLS");
        let remedy = "set tls_certificate_file and tls_key_file, or listen on 127.0.0.1";
        findings.push(match settings.insecure {
            true => Finding::warning(CHECK, found, remedy),
            false => Finding::problem(CHECK, found, remedy),
        });
    }
    if is_exposed && !settings.authenticates() {
        let found = format!("anyone who reaches {listen} may do everything: authentication is off");
        let remedy = "set authentication = \"on\" and create users";
        findings.push(match settings.insecure {
            true => Finding::warning(CHECK, found, remedy),
            false => Finding::problem(CHECK, found, remedy),
        });
    }
    if has_tls && settings.insecure {
        let found = "insecure is set, so plain text is taken from other machines beside TLS";
        findings.push(Finding::warning(CHECK, found, "remove insecure"));
    }
    if !is_exposed && has_tls && !settings.authenticates() {
        let found = "TLS is on and authentication is off";
        findings.push(Finding::warning(
            CHECK,
            found,
            "remove authentication = \"off\"",
        ));
    }
    if listen.ip().is_unspecified() && settings.advertised_host.is_empty() {
        let found =
            "advertised_host is empty: clients that discover are sent to the name they used";
        let remedy = "set advertised_host if clients reach the server through a proxy";
        findings.push(Finding::warning(CHECK, found, remedy));
    }
    findings
}

/// Times that end what another time allows.
fn times(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (shutdown, request) = (settings.shutdown_timeout, settings.request_timeout);
    // The default is less than `request_timeout` as well: most calls take milliseconds.
    if shutdown < request && shutdown < Settings::default().shutdown_timeout {
        let found = format!(
            "shutdown_timeout {shutdown:?} is less than request_timeout {request:?}: a shutdown aborts slow calls"
        );
        let remedy = "raise shutdown_timeout, or lower request_timeout";
        findings.push(Finding::warning(CHECK, found, remedy));
    }
    let age = settings.connection_age_max;
    if !age.is_zero() && age < settings.request_timeout {
        let found = format!(
            "connection_age_max {age:?} is less than request_timeout {:?}",
            settings.request_timeout
        );
        findings.push(Finding::warning(CHECK, found, "raise connection_age_max"));
    }
    let slow = settings.slow_call_threshold;
    if slow > settings.request_timeout {
        let found = format!(
            "slow_call_threshold {slow:?} is more than request_timeout {:?}: no call is logged as slow",
            settings.request_timeout
        );
        findings.push(Finding::warning(CHECK, found, "lower slow_call_threshold"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn verdicts(given: &[(&str, &str)]) -> Vec<Verdict> {
        let mut settings = Settings::default();
        for (name, value) in given {
            settings.set(name, value).unwrap();
        }
        let findings = check(&settings);
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(verdicts(&[]), [Verdict::Ok]);
    }

    #[test]
    fn what_keeps_a_server_from_starting_is_a_problem_and_what_is_seldom_meant_a_warning() {
        use Verdict::{Problem, Warning};
        let exposed = ("listen", "10.0.0.7:2113");
        let tls = ("tls_certificate_file", "server.crt");
        let off = ("authentication", "off");
        assert_eq!(verdicts(&[exposed]), [Problem, Problem]);
        assert_eq!(
            verdicts(&[exposed, ("insecure", "true")]),
            [Warning, Warning]
        );
        assert_eq!(verdicts(&[exposed, tls, off]), [Problem]);
        assert_eq!(verdicts(&[exposed, tls]), [Verdict::Ok]);
        assert_eq!(verdicts(&[tls, off]), [Warning]);
        assert_eq!(verdicts(&[("listen", "0.0.0.0:2113"), tls]), [Warning]);
        assert_eq!(verdicts(&[("in_flight_bytes_max", "31MiB")]), [Problem]);
        assert_eq!(verdicts(&[("shutdown_timeout", "1s")]), [Warning]);
        assert_eq!(verdicts(&[("connection_age_max", "1s")]), [Warning]);
        assert_eq!(verdicts(&[("slow_call_threshold", "31s")]), [Warning]);
    }
}
