-- Health of an ApiClient. One that is suspended, as asked, is healthy.
local function said(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return condition.reason
end

local hs = {status = "Progressing", message = "Waiting for the controller"}
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Pending deletion"
  return hs
end
if obj.status == nil or obj.status.conditions == nil then
  return hs
end
local observed = obj.status.observedGeneration
if observed ~= nil and observed ~= obj.metadata.generation then
  hs.message = "Waiting for the latest change to be observed"
  return hs
end

local is = {}
for _, condition in ipairs(obj.status.conditions) do
  if condition.status == "True" then
    is[condition.type] = condition
  end
end
if is.Reconciling then
  hs.message = said(is.Reconciling)
elseif is.Stalled then
  hs.status = "Degraded"
  hs.message = said(is.Stalled)
elseif is.Ready then
  hs.status = "Healthy"
  hs.message = said(is.Ready)
end
return hs
