//! For tests of what joins connectors: one that does nothing.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{DeliveryError, Destination, Inbox, Outbound, Receipt, Source, SourceError};

/// Gives nothing, and takes everything.
pub(crate) struct Nothing;

#[async_trait]
impl Source for Nothing {
    async fn run(self: Box<Self>, _: Inbox, _: CancellationToken) -> Result<(), SourceError> {
        Ok(())
    }
}

#[async_trait]
impl Destination for Nothing {
    async fn deliver(&self, _: &Outbound) -> Result<Receipt, DeliveryError> {
        Ok(Receipt { answer: String::new(), detail: None })
    }
}
