//! Metrics of TLS: the certificate that is shown, and what came of handshakes.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All of them.
pub struct TlsMetrics {
    /// Until when the certificate is valid, in seconds since 1970; 0 where there is none.
    pub certificate_expiry: IntGauge,
    /// Handshakes since the start, by result and version; set from the listener's own counts.
    pub handshakes: IntGaugeVec,
    reloads: IntCounterVec,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let certificate_expiry = register!(
            registry,
            IntGauge::new(
                "snowbank_tls_certificate_expiry_timestamp_seconds",
                "Until when the certificate is valid; 0 where there is none.",
            )
        );
        let handshakes = register!(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "snowbank_tls_handshakes",
                    "TLS handshakes since the start, by result and version.",
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
        for result in ["ok", "failed"] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self { certificate_expiry, handshakes, reloads })
    }

    /// Notes that the certificate was read again, or that what is there now cannot be used.
    pub fn reloaded(&self, well: bool) {
        self.reloads.with_label_values(&[if well { "ok" } else { "failed" }]).inc();
    }
}
