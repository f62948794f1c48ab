// Asks as VirtDancer's first web page does: the list once, then each VM; a button posts JSON and looks at no answer but an
// error; nothing is refreshed by itself.
'use strict';
const byId = id => document.getElementById(id);
const vms = [];
let shown = null;

function ask(method, url, body, done) {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.setRequestHeader('Accept', 'application/json, text/plain, */*');
    if (body) request.setRequestHeader('Content-Type', 'application/json;charset=utf-8');
    request.onload = () => {
        const answer = JSON.parse(request.responseText);
        if (request.status < 300) done(answer); else console.log(JSON.stringify(answer));
    };
    request.send(body && JSON.stringify(body));
}

function show() {
    byId('running').textContent = `${vms.filter(vm => vm.active).length}/${vms.length} running`;
    vms.sort((a, b) => b.active - a.active || a.name.localeCompare(b.name));
    byId('list').replaceChildren(...vms.map(vm => {
        const item = document.createElement('li');
        item.textContent = vm.name;
        item.className = vm.active ? 'on' : 'off';
        item.onclick = () => {
            shown = vm;
            byId('detail').hidden = false;
            byId('name').textContent = vm.name;
            byId('about').textContent = `ID: ${vm.id} UUID: ${vm.uuid}`;
        };
        return item;
    }));
}

for (const button of document.querySelectorAll('button')) {
    const { action } = button.dataset;
    button.onclick = () => ask('POST', `/vm/${shown.uuid}/action`, { action }, () => {});
}
ask('GET', '/vm', null, list => list.forEach(({ uuid }) => ask('GET', `/vm/${uuid}`, null, vm => { vms.push(vm); show(); })));
