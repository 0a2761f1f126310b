//! Another process has the cells now, and what is charged here all the same is told to it: requests that come on connections from before.

use std::sync::mpsc::SyncSender;

use ringfence_policy::{TenantId, ratelimit::Mode};

use super::{
    state::{Charged, octets},
    tenant::Charges,
};

/// Who is told of one tenant's charges.
#[derive(Clone)]
pub(super) struct Heir {
    /// `None`: of the workload where it is shared.
    tenant: Option<TenantId>,
    is_of_names: bool,
    told: SyncSender<Charged>,
}

impl Heir {
    pub(super) fn of(tenant: Option<&TenantId>, told: SyncSender<Charged>) -> Self {
        Self { tenant: tenant.cloned(), is_of_names: false, told }
    }

    pub(super) fn of_names(self) -> Self {
        Self { is_of_names: true, ..self }
    }

    /// What limits in shadow mode have counted is not told: it refuses nobody.
    pub(super) fn tell<L>(&self, charges: &Charges<'_, L>) {
        for charge in charges.iter().filter(|charge| charge.mode == Mode::Enforce) {
            let Some(cost) = charge.cost else { continue };
            self.pass_on(Charged {
                tenant: self.tenant.as_ref().map(|tenant| tenant.as_str().into()),
                is_of_names: self.is_of_names,
                rule: charge.rule.as_str().into(),
                rate: charge.quota.rate.to_string(),
                burst: charge.quota.burst.get(),
                cell: octets(charge.cell),
                cost: cost.get(),
            });
        }
    }

    pub(super) fn pass_on(&self, charged: Charged) {
        // Where it does not keep up, or has ended, nothing waits for it.
        let _ = self.told.try_send(charged);
    }
}
