// Drives the console in a real Chromium: pages load without errors and without a request to anywhere else, filters work,
// the selected event names its top sensor, everything can be reached by keyboard. Screenshots go to SHOTS.
import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

const [demo, fleet, shots = "target/console", plant] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = 0;
const check = (what, holds, more = "") => {
  console.log(`${holds ? "ok  " : "FAIL"} ${what}${more ? `: ${more}` : ""}`);
  if (!holds) failed += 1;
};

async function open(name, url, { scheme = "light", width = 1280 } = {}) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  const errors = [];
  const bodies = [];
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => { if (new URL(request.url()).origin !== new URL(url).origin) errors.push(`asks elsewhere: ${request.url()}`); });
  page.on("response", (response) => bodies.push(response.body().then((body) => body.length, () => 0)));
  const began = performance.now();
  await page.goto(url, { waitUntil: "networkidle" });
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  const weight = (await Promise.all(bodies)).reduce((sum, bytes) => sum + bytes, 0);
  await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
  console.log(`     ${name}: first paint ${paint?.toFixed(0)} ms, loaded ${(performance.now() - began).toFixed(0)} ms, ${(weight / 1000).toFixed(0)} kB`);
  check(`${name} loads without errors`, errors.length === 0, errors.join("; "));
  check(`${name} weighs less than 300 kB`, weight < 300_000, `${weight}`);
  const unnamed = await page.evaluate(() => [...document.querySelectorAll("a, button, select, input:not([type=hidden])")].filter((part) => !(part.textContent.trim() || part.getAttribute("aria-label") || part.labels?.length)).length);
  check(`${name}: everything to press has a name`, unnamed === 0, `${unnamed} without`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(`${name}: the page does not scroll sideways`, wide <= 0, `${wide} px`);
  return { page, context, errors };
}

// The product as it runs.
{
  const { page, context } = await open("demo-overview", demo);
  check("the overview gives a verdict", /well|Delivering|problem/.test(await page.locator("#verdict").innerText()));
  const delivered = page.locator('.figure:has(dt:text-is("Delivered")) dd');
  const before = await delivered.innerText();
  let now = before;
  for (let tries = 0; tries < 60 && now === before; tries++) { await page.waitForTimeout(500); now = await delivered.innerText(); }
  check("the overview follows without a reload", now !== before, `${before}, then ${now}`);
  await page.keyboard.press("Tab");
  check("the first tab stop skips to the content", (await page.evaluate(() => document.activeElement.className)) === "skip");
  await context.close();
}
for (const [name, path] of [["demo-windows", "windows"], ["demo-coverage", "coverage"], ["demo-schedulers", "schedulers"], ["demo-models", "models"]]) {
  const { page, context } = await open(name, demo + path);
  if (name === "demo-windows") {
    await page.selectOption("#state", "quarantined");
    await page.waitForURL(/state=quarantined/);
    check("the windows' filter works", (await page.locator("#windows").innerText()).includes("No such window"));
    await page.selectOption("#state", "shipped");
    await page.waitForURL(/state=shipped/);
    check("shipped windows are listed", (await page.locator("#windows tbody tr").count()) > 0);
  }
  await context.close();
}

// The loop, live: the demo's machine begins to fail, and the console names what contributes.
{
  const address = `${demo}scheduler?name=demo%2Dscheduler`;
  // The scheduler is made once the model is trained.
  let made = false;
  for (let tries = 0; tries < 120 && !made; tries++) {
    made = (await fetch(address)).ok;
    if (!made) await new Promise((resume) => setTimeout(resume, 1000));
  }
  check("the demo's scheduler is made", made);
  if (made) {
    const { page, context } = await open("demo-scheduler-start", address);
    let named = "";
    for (let tries = 0; tries < 90 && !named; tries++) {
      await page.goto(address, { waitUntil: "networkidle" }).catch(() => {});
      named = await page.locator("#top-sensor").innerText({ timeout: 500 }).catch(() => "");
      if (!named) await page.waitForTimeout(1500);
    }
    check("the demo's anomaly is found and its top sensor named", named.includes("\\"), named);
    await page.waitForTimeout(1500);
    await page.screenshot({ path: `${shots}/demo-scheduler.png`, fullPage: true });
    await page.goto(demo, { waitUntil: "networkidle" });
    await page.screenshot({ path: `${shots}/demo-overview-anomaly.png`, fullPage: true });
    await context.close();
  }
}

// Many schedulers and a long history.
if (fleet) {
  await (await open("fleet-overview", fleet)).context.close();
  {
    const { page, context } = await open("fleet-schedulers", `${fleet}schedulers`);
    await page.fill("#part", "pump");
    const asked = Date.now();
    await page.keyboard.press("Enter");
    await page.waitForURL(/part=pump/);
    await page.waitForSelector("#list tbody tr");
    console.log(`     from Enter to the filtered list: ${Date.now() - asked} ms`);
    check("schedulers are found by name", (await page.locator("#list tbody tr").count()) === 1);
    await page.click("#list tbody a");
    await page.waitForURL(/scheduler\?name=/);
    check("a scheduler opens from the list", (await page.locator("h1").innerText()) === "pump-42");
    await context.close();
  }
  for (const scheme of ["light", "dark"]) {
    const { page, context } = await open(`fleet-scheduler-${scheme}`, `${fleet}scheduler?name=pump%2D42`, { scheme });
    check("the score is drawn", (await page.locator("[data-chart=score] canvas").count()) === 1);
    check("the contributions are drawn", (await page.locator("[data-chart=lines] canvas").count()) === 1);
    check("the signals are drawn", (await page.locator("[data-chart=signals] canvas").count()) === 4);
    check("the event's top sensor is named", (await page.locator("#top-sensor").innerText()).endsWith("bearing_vibration"));
    if (scheme === "light") {
      await page.click("#events tbody tr:nth-child(2) a");
      await page.waitForURL(/event=\d+/);
      check("another event can be selected", (await page.locator("#events tr.here").count()) === 1);
      const asked = Date.now();
      await page.selectOption("#status", "FAILED");
      await page.waitForURL(/status=FAILED/);
      await page.waitForSelector("#executions tbody tr");
      console.log(`     from the choice to the filtered history: ${Date.now() - asked} ms`);
      const statuses = await page.locator("#executions tbody tr td:nth-child(3)").allInnerTexts();
      check("the history's filter works", statuses.length > 0 && statuses.every((status) => status === "FAILED"), `${statuses.length} rows`);
      check("a failure comes with its fix", (await page.locator("#executions .fix").count()) > 0);
      await page.screenshot({ path: `${shots}/fleet-history-failed.png`, fullPage: true });
      await page.goto(`${fleet}scheduler?name=pump%2D42#history`);
      const older = page.getByRole("link", { name: "Older" });
      if (await older.count()) {
        const first = await page.locator("#executions tbody th").first().innerText();
        await older.click();
        await page.waitForURL(/before=/);
        check("the history is paged", (await page.locator("#executions tbody th").first().innerText()) < first);
      }
    }
    await context.close();
  }
  {
    // The picture of the README, docs/console.png, is a copy of this one.
    const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1120, height: 1230 } });
    const page = await context.newPage();
    await page.goto(`${fleet}scheduler?name=pump%2D42`, { waitUntil: "networkidle" });
    await page.screenshot({ path: `${shots}/readme.png` });
    await page.goto(fleet, { waitUntil: "networkidle" });
    check("what is anomalous comes first in the overview", (await page.locator("#schedulers tbody th").first().innerText()) === "pump-42");
    check("and its score is known", /0\.\d\d/.test(await page.locator("#schedulers tbody tr").first().innerText()));
    const began = Date.now();
    await page.click("#schedulers tbody th a");
    await page.waitForSelector("[data-chart=score] canvas");
    console.log(`     from a click on the overview to the drawn score: ${Date.now() - began} ms`);
    await context.close();
  }
  await (await open("fleet-models", `${fleet}models`)).context.close();
  await (await open("fleet-scheduler-narrow", `${fleet}scheduler?name=pump%2D42`, { width: 400 })).context.close();
}
// Many assets.
if (plant) {
  for (const scheme of ["light", "dark"]) {
    const { page, context } = await open(`plant-${scheme}`, plant, { scheme });
    const names = await page.locator("#assets tbody th").allInnerTexts();
    check("the plant begins with what is worst", names.slice(0, 3).join() === "asset-0007,pump-42,asset-0003", names.slice(0, 3).join());
    check("a page of assets is shown", names.length === 50, `${names.length}`);
    check("every asset's day is drawn", (await page.locator("#assets svg.spark[aria-label]").count()) === 50);
    const shapes = await page.locator("#assets td .chip .shape path").evaluateAll((paths) => new Set(paths.map((path) => path.getAttribute("d"))).size);
    check("states are told apart by their shape", shapes >= 5, `${shapes}`);
    if (scheme === "light") {
      const asked = Date.now();
      await page.fill("#part", "PUMP");
      await page.keyboard.press("Enter");
      await page.waitForURL(/part=PUMP/);
      check("assets are found by name", (await page.locator("#assets tbody tr").count()) === 1);
      console.log(`     from Enter to the filtered assets: ${Date.now() - asked} ms`);
      await page.goto(plant, { waitUntil: "networkidle" });
      await page.selectOption("#state", "waiting");
      await page.waitForURL(/state=waiting/);
      check("assets are found by state", (await page.locator("#assets tbody tr").count()) === 9);
      await page.goto(plant, { waitUntil: "networkidle" });
      await page.getByRole("link", { name: "Next" }).click();
      await page.waitForURL(/page=2/);
      check("assets are paged", (await page.locator("#assets tbody tr").count()) === 50);
    }
    await context.close();
  }
  {
    const { page, context } = await open("plant-asset", `${plant}asset?asset=pump%2D42`);
    check("an asset's score is drawn", (await page.locator("[data-chart=score] canvas").count()) === 1);
    check("and what leads its event is named", (await page.locator("#trouble").innerText()).includes("bearing_vibration"));
    await page.click("#events tbody tr a");
    await page.waitForURL(/event=\d+/);
    check("its event opens under the asset", (await page.locator(".tabs a[aria-current]").innerText()) === "Scheduler and events");
    await page.click('.tabs a:has-text("Windows")');
    await page.waitForURL(/windows\?asset=/);
    check("and its windows beside it", (await page.locator("h1").innerText()) === "Windows of pump-42");
    await context.close();
  }
  await (await open("plant-scheduler", `${plant}scheduler?asset=pump%2D42`)).context.close();
  await (await open("plant-narrow", plant, { width: 400 })).context.close();
}
await browser.close();
console.log(failed ? `${failed} checks failed` : "all checks hold");
process.exit(failed ? 1 : 0);
