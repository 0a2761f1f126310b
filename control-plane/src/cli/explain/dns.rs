//! `explain … dns`: a query of the workload. Asks nobody: what upstreams say is the caller's to say.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use clap::Args;
use ringfence_xds::policy::{
    Reason, Snapshot,
    budget::{Budget, Charge, Count, Key, Question},
    ratelimit::Mode,
    rpz::{
        Act, Action, Decision, Lookup, Name, Override, Policy, PolicyZone, Query, Record, Rewrite, Scope, Transport, Verdict, Walk, rtype,
        text,
    },
    tenant::ServedTenants,
};

use super::{ExplainError, Explanation};

#[derive(Debug, Args)]
pub(super) struct DnsArgs {
    /// What is asked for, e.g. www.example.com
    name: Name,
    /// A, AAAA, HTTPS, TXT …
    #[arg(value_name = "TYPE", value_parser = record_type)]
    rtype: u16,
    /// Who asks
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// Over TCP
    #[arg(long)]
    tcp: bool,
    /// What the name is an alias of; given several times, each leads to the next
    #[arg(long = "cname", value_name = "NAME", num_args = 1..)]
    aliases: Vec<Name>,
    /// What upstreams answer in the end; may be given several times
    #[arg(long = "address", value_name = "IP", num_args = 1..)]
    addresses: Vec<IpAddr>,
}

fn record_type(text: &str) -> Result<u16, &'static str> {
    text::type_of(text.as_bytes()).ok_or("must be a record type, e.g. A, HTTPS or TYPE65")
}

impl DnsArgs {
    /// `not_transferred`: zones that are to come from a primary, and have not.
    pub(super) fn explain(&self, snapshot: &Snapshot, not_transferred: &[Arc<str>]) -> Result<Explanation, ExplainError> {
        let workload = &snapshot.workload;
        let Some(dns) = &workload.dns else { return Err(ExplainError::NoDns(workload.name.to_string())) };
        let mut explanation = Explanation::default();
        explanation.begin("listener");
        explanation.say(match dns.listen {
            Some(listen) => format!("asked of {listen} by {}", self.client),
            None => "no queries are served: the upstreams are for the sidecar's own".to_owned(),
        });
        charge(&snapshot.budget.at_once().collect::<Vec<_>>(), &mut explanation);
        explanation.begin("zones");
        let Some(zones) = &snapshot.zones else {
            explanation.say(match not_transferred {
                [] => "one cannot be had: no query is answered".to_owned(),
                names => format!("not transferred yet: {}; until it is, no query is answered", names.join(", ")),
            });
            return Ok(explanation.refuse(Reason::ConfigAbsent, None));
        };
        let whose = match &workload.tenants {
            ServedTenants::One(tenant) => format!("tenant {tenant}'s"),
            ServedTenants::Some(_) | ServedTenants::Any => "the workload's own, for no query tells whose it is".to_owned(),
        };
        explanation.say(list(zones, &whose));
        let transport = if self.tcp { Transport::Tcp } else { Transport::Udp };
        let query = Query { name: self.name.clone(), rtype: self.rtype, client: self.client, transport };
        let mut walk = Walk::new(zones, query);
        let verdict = self.route(&mut walk, &snapshot.budget, &mut explanation);
        if let Some(decision) = walk.shadow() {
            explanation.begin("shadow");
            explanation.say(format!("would have acted: {}", rule(decision)));
        }
        Ok(match verdict {
            Verdict::Pass(decision) => explanation.pass(decision.as_deref()),
            Verdict::Act(Act::Drop(decision)) => explanation.refuse(Reason::NameBlocked, Some(&decision)),
            Verdict::Act(Act::Answer(rewrite)) => match rewrite.decision.action {
                // The client comes back over TCP.
                Action::TcpOnly => explanation.pass(Some(&rewrite.decision)),
                Action::LocalData => explanation.refuse(Reason::NameRewritten, Some(&rewrite.decision)),
                _ => explanation.refuse(Reason::NameBlocked, Some(&rewrite.decision)),
            },
            Verdict::Ask(_) => explanation.pass(None),
            Verdict::Unanswered => explanation.refuse(Reason::UpstreamProtocol, None),
        })
    }

    /// The stages of the DNS route, in their order.
    fn route(&self, walk: &mut Walk<'_>, budget: &Budget, explanation: &mut Explanation) -> Verdict {
        explanation.begin("query");
        if let Some(act) = walk.filter_query() {
            explanation.say(format!("{}; no upstream is asked", said(&act)));
            return Verdict::Act(act);
        }
        explanation.say(format!("upstreams are asked for {}", self.name));
        charge(&budget.to_ask(&Question::new(self.name.as_wire(), self.rtype, false), true).collect::<Vec<_>>(), explanation);
        let mut answer = Vec::new();
        let mut owner = &self.name;
        for alias in &self.aliases {
            answer.push(record(owner, rtype::CNAME, alias.as_wire().to_vec()));
            explanation.begin("alias");
            let verdict = walk.filter_aliases(&answer);
            match &verdict {
                Verdict::Act(act) => {
                    explanation.say(format!("{owner} leads to {alias}: {}; nobody is asked for that", said(act)));
                    return verdict;
                }
                Verdict::Ask(lookup) => explanation.say(format!("{owner} leads to {alias}; {}", undecided(lookup))),
                Verdict::Pass(Some(decision)) => explanation.say(format!("{owner} leads to {alias}: {}", rule(decision))),
                Verdict::Pass(None) => explanation.say(format!("{owner} leads to {alias}")),
                Verdict::Unanswered => {
                    explanation.say(format!("{owner} leads to {alias}: in a circle, or too far"));
                    return verdict;
                }
            }
            owner = alias;
        }
        for address in &self.addresses {
            answer.push(match address {
                IpAddr::V4(address) => record(owner, rtype::A, address.octets().to_vec()),
                IpAddr::V6(address) => record(owner, rtype::AAAA, address.octets().to_vec()),
            });
        }
        explanation.begin("response");
        let verdict = walk.filter_response(0, &answer);
        explanation.say(match &verdict {
            Verdict::Pass(Some(decision)) => rule(decision),
            Verdict::Pass(None) if self.addresses.is_empty() => {
                "no rule; addresses are judged once they are known: ask with --address, and with --cname for aliases".to_owned()
            }
            Verdict::Pass(None) => "no rule".to_owned(),
            Verdict::Act(act) => said(act),
            Verdict::Ask(lookup) => undecided(lookup),
            Verdict::Unanswered => "the aliases lead in a circle, or too far".to_owned(),
        });
        verdict
    }
}

/// What the query costs. Whether that is left, and whether the name is new, only the sidecar knows.
fn charge(charges: &[Charge<'_>], explanation: &mut Explanation) {
    for (limit, cost) in charges {
        let cost = match limit.count {
            Count::Queries => "a query".to_owned(),
            Count::Names => "a name, if it was not asked for lately".to_owned(),
            Count::Entropy => format!("{cost} octets, if the name was not asked for lately"),
            Count::Txt => "what free-form octets the answer has".to_owned(),
        };
        let key = match limit.key {
            Key::Tenant => "tenant",
            Key::Domain => "domain",
        };
        let mode = match limit.mode {
            Mode::Enforce => "enforced",
            Mode::Shadow => "shadow",
        };
        let quota = limit.quota;
        explanation.begin("budget");
        explanation.say(format!("{cost}: {} ({}, burst {}, by {key}, {mode})", limit.rule, quota.rate, quota.burst));
    }
}

fn record(owner: &Name, rtype: u16, rdata: Vec<u8>) -> Record {
    Record { owner: owner.clone(), rtype, ttl: 0, rdata }
}

fn list(zones: &Policy, whose: &str) -> String {
    let told = |scope: Scope| {
        let names = zones.zones().iter().filter(|zone| zone.scope == scope).map(name);
        names.collect::<Vec<_>>().join(", ")
    };
    match (told(Scope::Platform), told(Scope::Tenant)) {
        (platform, own) if platform.is_empty() && own.is_empty() => "none".to_owned(),
        (platform, own) if platform.is_empty() => format!("{own} ({whose})"),
        (platform, own) if own.is_empty() => format!("{platform} (the platform's)"),
        (platform, own) => format!("{platform} (the platform's), then {own} ({whose})"),
    }
}

fn name(zone: &PolicyZone) -> String {
    match (&zone.r#override, zone.mode) {
        (Override::Given, Mode::Enforce) => zone.name.to_string(),
        (other, Mode::Enforce) => format!("{} ({other})", zone.name),
        (Override::Given, Mode::Shadow) => format!("{} (shadow)", zone.name),
        (other, Mode::Shadow) => format!("{} ({other}, shadow)", zone.name),
    }
}

fn undecided(Lookup { name, rtype: of }: &Lookup) -> String {
    let what = if *of == rtype::NS { "servers" } else { "addresses" };
    format!("rules about name servers are judged once the {what} of {name} are known")
}

/// `PolicyZone/malware: QNAME *.example.com: NXDOMAIN`.
fn rule(decision: &Decision) -> String {
    format!("PolicyZone/{}: {} {}: {}", decision.zone, decision.trigger, decision.owner, decision.action)
}

fn said(act: &Act) -> String {
    match act {
        Act::Drop(decision) => format!("{}; nothing is answered", rule(decision)),
        Act::Answer(rewrite) => format!("{}; {}", rule(&rewrite.decision), answered(rewrite)),
    }
}

fn answered(Rewrite { rcode, truncated, answer, follow, .. }: &Rewrite) -> String {
    let rcode = match rcode {
        0 => "NOERROR",
        3 => "NXDOMAIN",
        _ => "YXDOMAIN",
    };
    let follow = follow.as_ref().map_or(String::new(), |target| format!(" and what {target} leads to"));
    match (truncated, answer.len()) {
        (true, _) => "the answer is cut, so that the client comes back over TCP".to_owned(),
        (_, 0) => format!("answered: {rcode}"),
        (_, 1) => format!("answered: {rcode} with a record{follow}"),
        (_, records) => format!("answered: {rcode} with {records} records{follow}"),
    }
}

impl Explanation {
    fn pass(mut self, decision: Option<&Decision>) -> Self {
        self.decision = "allow";
        self.rule = decision.map(rule);
        self
    }

    fn refuse(mut self, reason: Reason, decision: Option<&Decision>) -> Self {
        self.decision = "deny";
        self.reason = Some(reason.as_str());
        self.rule = decision.map(rule);
        self
    }
}
