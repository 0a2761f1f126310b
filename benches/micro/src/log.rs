//! Writing the access log's line of a request.

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use http::{StatusCode, Version};
use ringfence_policy::WorkloadName;
use ringfence_proxy::telemetry::{
    Decision, RequestId,
    access_log::{AccessRecord, Clipped, Record, Route, Timings, append, subject_hash},
};

use crate::{
    Case, Run,
    world::{NOW, WORKLOAD, name},
};

pub(crate) const CASES: &[Case] = &[Case { name: "log/request", prepare: request }];

fn request() -> Run {
    let workload: WorkloadName = WORKLOAD.parse().expect("a name");
    let record = Record::from(AccessRecord {
        time: SystemTime::UNIX_EPOCH + Duration::new(NOW, 123_456_000),
        id: RequestId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        route: Route::Inbound,
        listener: "127.0.0.1:18080".parse().expect("an address"),
        destination: None,
        peer: None,
        tenant: Some(name(0).parse().expect("a name")),
        subject_hash: Some(subject_hash("sso", "subject-0")),
        method: Clipped::method(b"GET"),
        path: Clipped::path(b"/tenants/tenant-0/orders/17"),
        version: Version::HTTP_11,
        status: Some(StatusCode::OK),
        decision: Decision::Allow,
        rule: None,
        shadow: Vec::new(),
        bytes_in: 0,
        bytes_out: 512,
        timings: Timings {
            total: Duration::from_micros(412),
            identify: Some(Duration::from_micros(3)),
            upstream: Some(Duration::from_micros(380)),
        },
        upstream_error: None,
        trace_id: None,
    });
    let mut lines = Vec::new();
    Box::new(move || {
        lines.clear();
        append(black_box(&record), &workload, &mut lines);
        assert!(black_box(&lines).ends_with(b"}\n"));
    })
}
