//! Metrics of TLS: the certificate that is shown, and what came of handshakes.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::http::raise;

/// All of them.
pub struct TlsMetrics {
    /// Until when the certificate is valid that a listener shows, in seconds since 1970.
    certificate_expiry: IntGaugeVec,
    handshakes: IntCounterVec,
    reloads: IntCounterVec,
    renewals: IntCounterVec,
    revocations: IntGauge,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let certificate_expiry = register!(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "snowbank_tls_certificate_expiry_timestamp_seconds",
                    "Until when the certificate is valid that a listener shows.",
                ),
                &["listener"],
            )
        );
        let revocations = register!(
            registry,
            IntGauge::new(
                "snowbank_tls_revocations",
                "Revoked certificates of clients in the lists that are loaded.",
            )
        );
        let handshakes = register!(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "snowbank_tls_handshakes_total",
                    "TLS handshakes, by result and version.",
                ),
                &["result", "version"],
            )
        );
        let reloads = register!(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "snowbank_tls_reloads_total",
                    "Times that the certificate had changed on disk, by what came of it.",
                ),
                &["result"],
            )
        );
        let renewals = register!(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "snowbank_tls_renewals_total",
                    "Times that the server had a certificate issued to itself, by what came of it.",
                ),
                &["result"],
            )
        );
        for result in ["ok", "failed"] {
            reloads.with_label_values(&[result]);
            renewals.with_label_values(&[result]);
        }
        Ok(Self { certificate_expiry, handshakes, reloads, renewals, revocations })
    }

    /// Notes what is shown at `listener`, and how many certificates of clients are revoked.
    pub fn shown(&self, listener: &str, not_after: i64, revocations: usize) {
        self.certificate_expiry.with_label_values(&[listener]).set(not_after);
        self.revocations.set(i64::try_from(revocations).unwrap_or(i64::MAX));
    }

    /// Notes how many handshakes ended so since the start; both labels are of fixed sets.
    pub fn handshakes(&self, result: &'static str, version: &'static str, count: u64) {
        raise(&self.handshakes.with_label_values(&[result, version]), count);
    }

    /// Notes that a certificate was issued, or was not.
    pub fn renewed(&self, well: bool) {
        self.renewals.with_label_values(&[if well { "ok" } else { "failed" }]).inc();
    }

    /// Notes that the certificate was read again, or that what is there now cannot be used.
    pub fn reloaded(&self, well: bool) {
        self.reloads.with_label_values(&[if well { "ok" } else { "failed" }]).inc();
    }
}
