//! The console of a plant: it begins with the assets, the worst first, each with its pages; hostile names stay text, and a
//! thousand assets are paged and quick.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::executions::Place;
use lookoutd::ops::site::Site;
use lookoutd::vitals::{Code, Trouble, Vitals};

use crate::admin::{Desk, get};
use crate::fleet::{self, Fleet};
use crate::rig::{self, Store, at};

const NOW: &str = "2026-01-01T10:00:45Z";

/// A desk over a plant whose last `broken` assets wait, with what is wrong with others.
async fn plant(fleet: &Fleet, store: &Store, broken: usize, wrong: &[(&str, Code, &str)]) -> Desk {
    let now: DateTime<Utc> = at(NOW);
    let objects = Some(&store.store);
    let (service, data) = (store.scratch("service"), store.scratch("data"));
    let places = fleet.write(&service, objects, rig::BUCKET, now).await;
    let vitals = Vitals::default();
    for (asset, code, text) in wrong {
        let trouble = Trouble::new(
            *code,
            now - TimeDelta::minutes(20),
            (*text).to_owned(),
            "do",
        );
        vitals.of(asset).troubles().raise(trouble);
    }
    let assets = fleet::assets(fleet, &data, &store.bucket(), now, &vitals, broken);
    Desk::over(Site {
        inputs: Vec::new(),
        store: None,
        clock: Clock::manual(now),
        assets,
        history: Some(Place::service(places.state)),
        archive: None,
        s3: Some(store.bucket().client().clone()),
        vitals,
    })
    .await
}

/// The names in the list of assets, in its order.
fn listed(page: &str) -> Vec<&str> {
    let rows = page
        .split("<th scope=\"row\"><a href=\"/asset?asset=")
        .skip(1);
    rows.map(|row| {
        let name = row.split_once('>').unwrap().1;
        name.split_once('<').unwrap().0
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plants_console_begins_with_its_assets_the_worst_first() {
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 6,
        executions: 300,
        ..Fleet::default()
    };
    let wrong = [
        ("asset-0004", Code::SourceFailing, "the history is a swamp"),
        ("asset-0003", Code::SourceGap, "fewer rows than usual"),
    ];
    let desk = plant(&fleet, &store, 1, &wrong).await;
    let page = desk.page("/").await;
    let names = ["asset-0004", "pump-42", "asset-0003", "asset-0006"];
    let found = listed(&page);
    assert_eq!(found[..4], names, "{found:?}");
    assert_eq!(found[4..], ["asset-0001", "asset-0002", "asset-0005"]);
    // Each says its state by a word, what is wrong, and the score of its day.
    for part in [
        "</svg>problem</span>",
        "</svg>anomaly</span>",
        "</svg>attention</span>",
        "</svg>waiting</span>",
        "the history is a swamp",
        "centrifugal-pump\\bearing_vibration 50 %",
        "fewer rows than usual",
        "highest score of the last day 0.9",
        "waits for its history",
    ] {
        assert!(page.contains(part), "{part} not in {page}");
    }
    // Found by name, by state, and both.
    let some = desk.page("/?part=ASSET&state=ok").await;
    assert_eq!(listed(&some), ["asset-0001", "asset-0002", "asset-0005"]);
    assert!(some.contains("</svg><b>3</b> ok"), "{some}");
    let none = desk.page("/?part=nothing").await;
    assert!(none.contains("No such asset."), "{none}");
    assert_eq!(
        listed(&desk.page("/?state=anomaly&page=99").await),
        ["pump-42"]
    );
    // Its own pages lead to each other and say which asset they are of.
    let own = desk.page("/asset?asset=pump-42").await;
    for part in [
        "The last result is anomalous, since ",
        "href=\"/windows?asset=pump%2D42\"",
        "href=\"/scheduler?asset=pump%2D42\"",
        "href=\"/coverage?asset=pump%2D42\"",
        "data-src=\"/api/score?name=pump%2D42&amp;hours=24\"",
        "/scheduler?name=pump%2D42&amp;asset=pump%2D42&amp;hours=168&amp;event=",
        "12 signals in 2 components",
    ] {
        assert!(own.contains(part), "{part} not in {own}");
    }
    let scheduler = desk.page("/scheduler?asset=pump-42").await;
    assert!(scheduler.contains("<h1>pump-42</h1>") && scheduler.contains("bearing_vibration"));
    let windows = desk.page("/windows?asset=asset-0002").await;
    assert!(windows.contains("Windows of asset-0002") && windows.contains("2026-01-01 10:00:00"));
    let waits = desk.page("/asset?asset=asset-0006").await;
    assert!(waits.contains("It waits for its history"), "{waits}");
    let coverage = desk.page("/coverage?asset=asset-0006").await;
    assert!(coverage.contains("It waits for its history"), "{coverage}");
    let stranger = crate::admin::get(desk.address(), "/asset?asset=stranger", "").await;
    assert_eq!(stranger.status, 404);
    assert!(
        stranger
            .body
            .contains("There is no asset <b>stranger</b> here")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_assets_are_text_on_every_page() {
    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 2,
        executions: 30,
        with_files: 10,
        name: EVIL.into(),
        component: "c<b>".into(),
        sensors: ["a", "b", EVIL].map(String::from).to_vec(),
        reason: format!("Could not find data file {EVIL}"),
        ..Fleet::default()
    };
    let desk = plant(&fleet, &store, 0, &[(EVIL, Code::SourceGap, EVIL)]).await;
    let name = percent_encoding::utf8_percent_encode(EVIL, percent_encoding::NON_ALPHANUMERIC);
    for path in [
        "/".to_owned(),
        format!("/?part={name}&state={name}"),
        format!("/asset?asset={name}"),
        format!("/windows?asset={name}"),
        format!("/scheduler?asset={name}"),
        format!("/coverage?asset={name}"),
        format!("/windows?asset=none{name}"),
    ] {
        let page = desk.page(&path).await;
        for part in ["<script>alert", "<img", "c<b>", "onerror=alert(1)>\""] {
            assert!(!page.contains(part), "{part} in {path}: {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"), "{path}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_assets_are_paged_and_quick() {
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 1_000,
        executions: 300,
        with_files: 10,
        ..Fleet::default()
    };
    let desk = plant(&fleet, &store, 100, &[]).await;
    let mut slowest = Duration::ZERO;
    for path in [
        "/",
        "/?page=20",
        "/?part=99",
        "/?state=waiting&page=2",
        "/asset?asset=pump-42",
        "/windows?asset=asset-0500",
        "/scheduler?asset=asset-0500",
        "/coverage?asset=asset-0500",
    ] {
        let began = Instant::now();
        let page = desk.page(path).await;
        let took = began.elapsed();
        slowest = slowest.max(took);
        eprintln!("{path}: {} bytes in {took:?}", page.len());
        assert!(page.len() < 150_000, "{path}: {} bytes", page.len());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let first = desk.page("/").await;
    assert_eq!(listed(&first).len(), 50);
    assert_eq!(listed(&first)[0], "pump-42");
    assert!(first.contains("page 1 of 21"), "{first}");
    assert_eq!(listed(&desk.page("/?page=21").await).len(), 1);
}

/// What stands in everybody's way is said on every asset's page, although no asset of its own has it.
#[tokio::test(flavor = "multi_thread")]
async fn no_asset_is_called_well_while_something_stands_in_the_way_of_all() {
    let store = Store::start();
    let fleet = Fleet {
        schedulers: 2,
        executions: 20,
        ..Fleet::default()
    };
    let well = "Fed and executed as it should be";
    let desk = plant(&fleet, &store, 0, &[]).await;
    let page = desk.page("/asset?asset=asset-0001").await;
    assert!(page.contains(well), "{page}");
    let wrong = [("", Code::StoreRefuses, "the store refuses everybody")];
    let store = Store::start();
    let desk = plant(&fleet, &store, 0, &wrong).await;
    let page = desk.page("/asset?asset=asset-0001").await;
    assert!(
        page.contains("concerns all assets") && !page.contains(well),
        "{page}"
    );
    assert!(desk.page("/").await.contains("the store refuses everybody"));
    // Without a name there is no such page, and no praise on it.
    let nobody = get(desk.address(), "/asset", "").await;
    assert_eq!(nobody.status, 404);
    assert!(!nobody.body.contains(well), "{}", nobody.body);
}
